"""What a file of a network says of it, so that nobody has to guess how to feed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

NORMALISED, PIXELS = "pixels / 127.5 - 1", "pixels, 0 to 255"
RAW, UNIT = "embeddings", "embeddings of length 1"
_NUMBERS = ("width", "embedding_dim", "input_size")


@dataclass(frozen=True)
class Facts:
    """The network, what it takes and gives, and where it comes from; a text is empty where that is not known.

    ``input``: images ``(n, 3, input_size, input_size)`` in RGB, float32, as :data:`NORMALISED` or :data:`PIXELS`.
    ``output``: ``(n, embedding_dim)`` float32, :data:`RAW` or :data:`UNIT`. ``data`` is the fingerprint of the
    training set.
    """

    network: str
    width: int
    embedding_dim: int
    input_size: int
    colour_order: str = "RGB"
    input: str = NORMALISED
    output: str = RAW
    precision: str = "float32"
    objective: str = ""
    identities: str = ""
    step: str = ""
    data: str = ""
    licence: str = ""
    made_by: str = ""

    def texts(self) -> dict[str, str]:
        """Each fact as text, as the files keep it."""
        return {name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def of_texts(cls, texts: Mapping[str, str]) -> Facts:
        """The facts that :meth:`texts` wrote; other keys are passed over. ValueError where one is missing."""
        known: dict[str, Any] = {field.name: texts[field.name] for field in fields(cls) if field.name in texts}
        try:
            return cls(**known | {name: int(known[name]) for name in _NUMBERS})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"it is no network of partial_fc: {error!s} is missing or no number") from error
