"""The hooks a plugin may implement, under the entry-point group `fusemix`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from fusemix_core.specs import (
    ComponentSpec,
    EncoderSpec,
    FamilySpec,
    GeneratorSpec,
    ModalitySpec,
    ModelSpec,
)

if TYPE_CHECKING:
    import typer

hookspec = pluggy.HookspecMarker("fusemix")
hookimpl = pluggy.HookimplMarker("fusemix")


@hookspec
def fusemix_encoders() -> Iterable[EncoderSpec | FamilySpec]:
    """The encoders, and families of encoders, that this plugin brings. Metadata only."""
    return ()


@hookspec
def fusemix_generators() -> Iterable[GeneratorSpec | FamilySpec]:
    """The generators, and families of generators, that this plugin brings. Metadata only."""
    return ()


@hookspec
def fusemix_components() -> Iterable[ComponentSpec]:
    """The adapters, mixups, objectives, aligners, recipes, … that it brings. Metadata only."""
    return ()


@hookspec
def fusemix_modalities() -> Iterable[ModalitySpec]:
    """The modalities that it declares: their medium, suffixes, usual columns, prompts."""
    return ()


@hookspec
def fusemix_models() -> Iterable[ModelSpec]:
    """The saved models that its package contains, which users name `PLUGIN:NAME`. Metadata only."""
    return ()


@hookspec
def fusemix_commands(app: typer.Typer) -> None:
    """Add commands to the `fusemix` command line."""
