"""The run's configuration: YAML over typed models, one per component, that refuse what they do not know.

A file holds only what differs from the defaults. ``--set a.b=c`` overrides one value. The resolved whole is written
beside the run and reads back as the same configuration.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from launch.config.objectives import DEFAULT, SECTIONS, ObjectiveConfig
from launch.config.plain import BackboneConfig, PlainConfig
from partial_fc.backbones import refuse_unknown_options


class Config(PlainConfig):
    """A whole run: what losses and networks say of their own arguments is asked here."""

    objective: ObjectiveConfig = Field(SECTIONS[DEFAULT](name=DEFAULT), discriminator="name")

    @field_validator("backbone")
    @classmethod
    def _refuse_what_the_network_lacks(cls, given: BackboneConfig) -> BackboneConfig:
        refuse_unknown_options(given.name, given.options())
        return given

    @field_validator("objective", mode="before")
    @classmethod
    def _name_the_default(cls, given: Any) -> Any:
        """Let ``objective: {max_scale: 30}`` mean AdaCos, as leaving the section out does."""
        return {"name": DEFAULT, **given} if isinstance(given, dict) else given
