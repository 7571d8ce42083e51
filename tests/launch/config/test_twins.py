"""Sections that repeat what torch's side says: keys, defaults and refusals of losses and networks are those there."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from launch import assembly
from launch.config.backbone import NETWORKS, BackboneConfig
from launch.config.objectives import ObjectiveConfig
from partial_fc.backbones import BACKBONES, backbone
from partial_fc.objectives import OBJECTIVES, P2SGrad

SECTIONS: dict[str, Any] = {
    get_args(section.model_fields["name"].annotation)[0]: section for section in get_args(get_args(ObjectiveConfig)[0])
}
NUMBERS = (-1.0, -1e-9, 0.0, 1e-9, 0.5, 0.999, 1.0, 1.001, 1.57, 1.571, 2.0, 2.001, 64.0, 80.0, 80.001, 1e6)
WORDS = (
    "mean",
    "median",
    "current",
    "previous",
    "balanced",
    "adacos",
    "all",
    "beyond_chance",
    "fading",
    "steady",
    "other",
)
OTHERS_NEEDED = {"cosine_softmax": {"scale": 16.0}}


def arguments(name: str) -> dict[str, inspect.Parameter]:
    """Of a loss's constructor, but for the number of classes."""
    return {key: each for key, each in inspect.signature(OBJECTIVES[name]).parameters.items() if key != "num_classes"}


def test_every_loss_has_a_section_with_the_arguments_and_defaults_of_its_constructor() -> None:
    assert SECTIONS.keys() == OBJECTIVES.keys()
    for name, section in SECTIONS.items():
        fields = {key: field for key, field in section.model_fields.items() if key != "name"}
        assert list(fields) == list(arguments(name))
        for key, parameter in arguments(name).items():
            assert fields[key].is_required() == (parameter.default is parameter.empty), (name, key)
            assert fields[key].is_required() or fields[key].default == parameter.default, (name, key)
            assert type(fields[key].default) is type(parameter.default) or fields[key].is_required(), (name, key)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_section_takes_what_the_constructor_takes_and_refuses_what_it_refuses(name: str) -> None:
    for key, parameter in arguments(name).items():
        for value in tried(parameter):
            assert section_takes(name, key, value) == constructor_takes(name, key, value), (key, value)


BEYOND: dict[str, Any] = {"negatives": "beyond_chance"}


@pytest.mark.parametrize(
    ("arguments", "is_taken"),
    [
        ({**BEYOND, "pull": "steady"}, True),
        ({**BEYOND, "chance_multiple": 0.8}, True),
        ({**BEYOND, "kappa": 0.2}, False),
        ({**BEYOND, "inter_class_weight": 1.0}, False),
        ({"chance_multiple": 0.8}, False),
    ],
)
def test_keys_of_p2sgrad_that_do_not_go_together_are_refused_on_both_sides(
    arguments: dict[str, Any], is_taken: bool
) -> None:
    makers: list[Callable[[], object]] = [
        lambda: P2SGrad(**arguments),
        lambda: SECTIONS["p2sgrad"].model_validate({"name": "p2sgrad", **arguments}),
    ]
    for make in makers:
        with nullcontext() if is_taken else pytest.raises(ValueError, match="leave"):
            make()


def tried(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """Values that the argument's type allows: the constructor need refuse no other."""
    if parameter.annotation == "bool":
        return True, False
    if parameter.annotation == "str":
        return WORDS
    others = {"float | str": WORDS, "float | None": (None,)}.get(parameter.annotation, ())
    return (*NUMBERS, *others)


def section_takes(name: str, key: str, value: Any) -> bool:
    try:
        section = SECTIONS[name].model_validate({"name": name, **OTHERS_NEEDED.get(name, {}), key: value})
    except ValidationError:
        return False
    made = assembly.objective(section, 10)
    assert getattr(made, key) == value, "and hands it on"
    return True


def constructor_takes(name: str, key: str, value: Any) -> bool:
    of_classes = {"num_classes": 10} if name == "adacos" else {}
    try:
        OBJECTIVES[name](**{**of_classes, **OTHERS_NEEDED.get(name, {}), key: value})
    except ValueError:
        return False
    return True


def test_every_network_has_its_name_and_the_options_of_its_family() -> None:
    assert NETWORKS.keys() == BACKBONES.keys()
    common = set(inspect.signature(backbone).parameters)
    for name, network in BACKBONES.items():
        own = [key for key, each in inspect.signature(network).parameters.items() if each.kind is each.KEYWORD_ONLY]
        assert set(NETWORKS[name]) == set(own) - common, name
        assert set(NETWORKS[name]) <= BackboneConfig.model_fields.keys()
