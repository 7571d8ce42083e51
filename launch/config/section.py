"""What all sections of the configuration share: they are never changed, and refuse keys they do not know."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator, model_validator


def user_path(text: str | Path) -> Path:
    """The path that ``text`` means to a shell: ``~`` is the user's own folder, ``~ann`` Ann's.

    ValueError where there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text}: there is no such user") from error


LARGEST, LARGEST_FLOAT32 = 2**63 - 1, 3.4e38
UserPath = Annotated[Path, AfterValidator(user_path)]


class Section(BaseModel):
    """A part of the configuration, with a field for every key."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _refuse_what_no_tensor_counts(cls, value: Any) -> Any:
        if isinstance(value, int) and value > LARGEST:
            raise ValueError(f"expected a number of at most {LARGEST:,}")
        if isinstance(value, float) and abs(value) > LARGEST_FLOAT32:
            raise ValueError(f"expected a number of at most {LARGEST_FLOAT32:g}, the largest in 32 bits")
        return value

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        """Say what pydantic's own refusal does not: the keys that this section has. An empty section is one."""
        if given is None:
            return {}
        unknown = [str(key) for key in given if key not in cls.model_fields] if isinstance(given, dict) else []
        if unknown:
            refusals = (f"unknown key {key!r}, {_known(key, cls)}" for key in unknown)
            raise ValueError("; ".join(refusals))
        return given


def _known(key: str, section: type[BaseModel]) -> str:
    """The key that may be meant; where none is like it, all that there are."""
    near = difflib.get_close_matches(key, section.model_fields, n=1)
    return f"the nearest is {near[0]!r}" if near else f"expected one of {', '.join(section.model_fields)}"
