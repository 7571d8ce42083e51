"""The section ``objective``: the name of a loss, and the arguments of its constructor as keys."""

from __future__ import annotations

import inspect
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import Field, create_model, model_validator

from launch.config.section import Section
from partial_fc.objectives import OBJECTIVES, Objective

DEFAULT = "adacos"
_SOME_CLASSES = 1000  # for a trial: no bound on an argument depends on the number of classes


class ObjectiveSection(Section):
    """What the sections of all losses share."""

    name: str

    def arguments(self, num_classes: int) -> dict[str, Any]:
        """The arguments of the loss's constructor. AdaCos alone takes ``num_classes``, for its first scale."""
        of_classes = {"num_classes": num_classes} if "num_classes" in _parameters(OBJECTIVES[self.name]) else {}
        return {**self.model_dump(exclude={"name"}), **of_classes}

    @model_validator(mode="after")
    def _refuse_what_the_loss_refuses(self) -> ObjectiveSection:
        OBJECTIVES[self.name](**self.arguments(_SOME_CLASSES))
        return self


def _parameters(loss: type[Objective]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(loss).parameters)


def _section(name: str, loss: type[Objective]) -> type[ObjectiveSection]:
    """The section of one loss, from the signature of its constructor."""
    hints = get_type_hints(loss.__init__)
    fields: dict[str, Any] = {
        key: (_read_as(hints[key]), ... if parameter.default is parameter.empty else parameter.default)
        for key, parameter in _parameters(loss).items()
        if key != "num_classes"
    }
    fields["name"] = (Literal[name], name if name == DEFAULT else ...)
    return create_model(f"{loss.__name__}Section", __base__=ObjectiveSection, **fields)


def _read_as(hint: Any) -> Any:
    """``hint``; of a number or a word a number where it is one, such as the text 3e-4."""
    return Annotated[hint, Field(union_mode="left_to_right")] if hint == float | str else hint


SECTIONS = {name: _section(name, loss) for name, loss in OBJECTIVES.items()}
if TYPE_CHECKING:
    ObjectiveConfig = ObjectiveSection
else:
    ObjectiveConfig = reduce(or_, SECTIONS.values())
