"""What all sections of the configuration share: they are never changed, and refuse keys they do not know."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A part of the configuration, with a field for every key."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        """Say what pydantic's own refusal does not: the nearest key that this section has. An empty section is one."""
        if given is None:
            return {}
        unknown = [str(key) for key in given if key not in cls.model_fields] if isinstance(given, dict) else []
        if unknown:
            refusals = (f"unknown key {key!r}, the nearest is {_nearest(key, cls)!r}" for key in unknown)
            raise ValueError("; ".join(refusals))
        return given


def _nearest(key: str, section: type[BaseModel]) -> str:
    return difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.0)[0]
