"""Finds the installed plugins. Loads each on its own, so that a broken one is a row in
`fusemix plugins` and never a crash."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import pluggy

from fusemix_core import hookspecs
from fusemix_core.errors import PluginError
from fusemix_core.specs import (
    ComponentSpec,
    EncoderSpec,
    FamilySpec,
    GeneratorSpec,
    ModalitySpec,
    ModelSpec,
)

GROUP = "fusemix"
CORE = "fusemix"

EntryPoints = Callable[[], Iterable[Any]]


@dataclass
class Plugin:
    """An installed plugin and what became of loading it."""

    name: str
    dist: str
    version: str
    module: str
    error: str = ""
    encoders: list[str] = field(default_factory=list)
    components: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    generators: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Declared:
    """What the hooks of a module return."""

    encoders: tuple[EncoderSpec | FamilySpec, ...]
    components: tuple[ComponentSpec, ...]
    modalities: tuple[ModalitySpec, ...]
    models: tuple[ModelSpec, ...] = ()
    generators: tuple[GeneratorSpec | FamilySpec, ...] = ()

    @classmethod
    def of(cls, module: Any) -> Declared:
        """Ask all hooks of a module. Raises `PluginError` for what is not a spec."""
        return cls(
            _asked(module, "fusemix_encoders", (EncoderSpec, FamilySpec)),
            _asked(module, "fusemix_components", (ComponentSpec,)),
            _asked(module, "fusemix_modalities", (ModalitySpec,)),
            _asked(module, "fusemix_models", (ModelSpec,)),
            _asked(module, "fusemix_generators", (GeneratorSpec, FamilySpec)),
        )


def installed() -> Iterable[Any]:
    """The entry points of all installed plugins."""
    return metadata.entry_points(group=GROUP)


def discover(entry_points: EntryPoints) -> Iterator[tuple[Plugin, Any, Declared | None]]:
    """(plugin, its module or object, what that declares) in order of name, of every plugin that
    `FUSEMIX_PLUGINS` lets in; a broken one declares None."""
    wanted = {n for n in os.environ.get("FUSEMIX_PLUGINS", "").replace(" ", "").split(",") if n}
    manager = pluggy.PluginManager("fusemix")
    manager.add_hookspecs(hookspecs)
    for point in sorted(entry_points(), key=lambda p: p.name):
        dist = point.dist.name if point.dist else point.name
        if wanted and dist != CORE and not wanted & {point.name, dist}:
            continue
        version = point.dist.version if point.dist else ""
        plugin = Plugin(point.name, dist, version, point.value)
        module = declared = None
        try:
            module = point.load()
            declared = Declared.of(module)
            manager.register(module, name=plugin.name)
        except (Exception, SystemExit) as error:
            declared, plugin.error = None, summary(error)
        else:
            plugin.encoders = _names(declared.encoders)
            plugin.generators = _names(declared.generators)
            plugin.components = [f"{s.kind} {s.name}" for s in declared.components]
            plugin.models = [f"{plugin.name}:{s.name}" for s in declared.models]
        yield plugin, module, declared


def _asked(module: Any, hook: str, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    function = getattr(module, hook, None)
    found = tuple(function() or ()) if function is not None else ()
    for spec in found:
        if not isinstance(spec, kinds):
            name = kinds[0].__name__
            article = "an" if name[0] in "AEIOU" else "a"
            raise PluginError(f"{hook} gave {spec!r}, which is not {article} {name}.")
    return found


def _names(specs: Iterable[EncoderSpec | GeneratorSpec | FamilySpec]) -> list[str]:
    return [f"{s.prefix}:" if isinstance(s, FamilySpec) else s.name for s in specs]


def summary(error: BaseException) -> str:
    """An error in a line."""
    return traceback.format_exception_only(error)[-1].strip() or type(error).__name__
