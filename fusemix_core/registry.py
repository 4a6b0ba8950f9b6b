"""Finds encoders and components by name. Loads each plugin on its own, so that a broken one is a
row in `fusemix plugins` and never a crash."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from fusemix_core import hookspecs
from fusemix_core.config import Part
from fusemix_core.errors import ConfigError, PluginError, UnknownNameError, short
from fusemix_core.specs import (
    ComponentSpec,
    EncoderSpec,
    FamilySpec,
    check_requirements,
    load_target,
)

GROUP = "fusemix"
CORE = "fusemix"
USER = "user"


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


class Registry:
    """Encoders and components of all plugins, and those that user code adds.

    `entry_points` replaces discovery (tests). `FUSEMIX_PLUGINS=a,b` restricts which plugins load,
    by entry-point or distribution name; fusemix itself always does.
    """

    def __init__(self, entry_points: Callable[[], Iterable[Any]] | None = None) -> None:
        self._entry_points = entry_points or (lambda: metadata.entry_points(group=GROUP))
        self._loaded = False
        self.plugins: list[Plugin] = []
        self._manager = pluggy.PluginManager("fusemix")
        self._manager.add_hookspecs(hookspecs)
        self._encoders: dict[str, dict[str, EncoderSpec]] = defaultdict(dict)
        self._families: dict[str, dict[str, FamilySpec]] = defaultdict(dict)
        self._components: dict[tuple[str, str], dict[str, ComponentSpec]] = defaultdict(dict)
        self._classes: dict[str, type] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Registry:
        """The same: a copy of a model finds its components where the model does."""
        return self

    def __reduce__(self) -> str:
        """In a pickle the registry of the process that reads it stands for that of this process."""
        if self is not registry:
            raise TypeError(
                "A Registry of your own can't be pickled: register in "
                "fusemix_core.registry.registry."
            )
        return "registry"

    # -- filling ---------------------------------------------------------------------------------

    def load(self) -> None:
        """Load every plugin once."""
        if self._loaded:
            return
        self._loaded = True
        wanted = {n for n in os.environ.get("FUSEMIX_PLUGINS", "").replace(" ", "").split(",") if n}
        for point in sorted(self._entry_points(), key=lambda p: p.name):
            dist = point.dist.name if point.dist else point.name
            if wanted and dist != CORE and not wanted & {point.name, dist}:
                continue
            version = point.dist.version if point.dist else ""
            plugin = Plugin(point.name, dist, version, point.value)
            self.plugins.append(plugin)
            try:
                self._load_plugin(plugin, point.load())
            except (Exception, SystemExit) as error:
                plugin.error = _summary(error)

    def _load_plugin(self, plugin: Plugin, module: Any) -> None:
        """Take everything a plugin declares, or nothing of it."""
        encoders = list(self._call(module, "fusemix_encoders"))
        components = list(self._call(module, "fusemix_components"))
        for spec in encoders:
            if not isinstance(spec, EncoderSpec | FamilySpec):
                raise PluginError(f"fusemix_encoders gave {spec!r}, which is not an EncoderSpec.")
        for spec in components:
            if not isinstance(spec, ComponentSpec):
                raise PluginError(f"fusemix_components gave {spec!r}, not a ComponentSpec.")
        self._manager.register(module, name=plugin.name)
        for spec in encoders:
            self._add_encoder_spec(spec, plugin.dist)
        for spec in components:
            self._add_component_spec(spec, plugin.dist)
        plugin.encoders = [
            s.name if isinstance(s, EncoderSpec) else f"{s.prefix}:" for s in encoders
        ]
        plugin.components = [f"{s.kind} {s.name}" for s in components]

    @staticmethod
    def _call(module: Any, hook: str, *args: Any) -> Iterable[Any]:
        function = getattr(module, hook, None)
        return function(*args) or () if function is not None else ()

    def _add_encoder_spec(self, spec: EncoderSpec | FamilySpec, dist: str) -> None:
        if isinstance(spec, FamilySpec):
            self._families[spec.prefix.lower()][dist] = spec
            return
        for name in (spec.name, *spec.aliases):
            self._encoders[name.lower()][dist] = spec

    def _add_component_spec(self, spec: ComponentSpec, dist: str) -> None:
        for name in (spec.name, *spec.aliases):
            self._components[spec.kind, name.lower()][dist] = spec

    def add(self, thing: type | EncoderSpec | FamilySpec | ComponentSpec) -> Any:
        """Register from user code: an Encoder class (with its `spec`), or any spec.

        Returns `thing`, so that it serves as a decorator. What the user adds wins over plugins.
        """
        if isinstance(thing, EncoderSpec | FamilySpec):
            self._add_encoder_spec(thing, USER)
        elif isinstance(thing, ComponentSpec):
            self._add_component_spec(thing, USER)
        elif isinstance(getattr(thing, "spec", None), EncoderSpec):
            self._add_encoder_spec(thing.spec, USER)
            self._classes[thing.spec.name.lower()] = thing
        else:
            raise ConfigError(
                f"{thing!r} can't be registered.",
                "Give an Encoder class with a `spec`, an EncoderSpec, or a ComponentSpec.",
            )
        return thing

    def add_component(self, kind: str, name: str, target: type, **options: Any) -> type:
        """Register a component class of user code under `name`; `options` are its defaults."""
        spec = ComponentSpec(
            kind=kind,
            name=name,
            target=f"{target.__module__}:{target.__qualname__}",
            options=options,
        )
        self._add_component_spec(spec, USER)
        self._classes[f"{kind} {name.lower()}"] = target
        return target

    # -- looking up ------------------------------------------------------------------------------

    def encoder(self, name: str, modality: str | None = None) -> EncoderSpec:
        """The spec of `name`, `dist/name`, `family:name`, `NAME@PATH` or `./file.py:Class`.

        `modality` is what the user calls it: a family may need it to know what a model reads.
        """
        self.load()
        base, at, path = name.partition("@")
        weights = Path(os.path.expanduser(path)) if at else None
        if weights and not os.path.exists(weights):
            raise ConfigError(f"'{short(name)}': {short(weights)} does not exist.")
        if base.partition(":")[0].endswith(".py"):
            spec = self._encoder_from_file(base)
        else:
            spec = self._named_encoder(base, modality, weights)
        if weights:
            spec = replace(
                spec,
                name=name,
                aliases=(),
                weights=str(weights.resolve()),
                sha256="",
                revision="",
                local=True,
            )
        return spec

    def _named_encoder(self, name: str, modality: str | None, path: Path | None) -> EncoderSpec:
        found = self._encoders.get(name.lower())
        if found:
            return self._only("encoder", name, found)
        prefix, colon, rest = name.partition(":")
        if colon:
            family = self._family(prefix)
            if not family:
                raise UnknownNameError.of(
                    "encoder family",
                    f"{prefix}:",
                    [f"{p}:" for p in self._families],
                    self._broken(),
                )
            spec = self._only("encoder family", prefix, family)
            check_requirements(name, spec.requires)
            return load_target(spec.resolve)(rest, modality, path)
        dist, slash, short = name.partition("/")
        if slash and (spec := self._encoders.get(short.lower(), {}).get(dist)):
            return spec
        families = ", ".join(f"{p}:NAME" for p in sorted(self._families))
        note = "Each encoder comes with a plugin, a pip package: fusemix encoders list"
        note += f"\nModels of a hub: {families}" if families else ""
        raise UnknownNameError.of(
            "encoder", name, self._encoders, f"{note}\n{self._broken()}".strip()
        )

    def _family(self, prefix: str) -> dict[str, FamilySpec] | None:
        """distribution → family, of `prefix` or `dist/prefix`."""
        dist, slash, short = prefix.partition("/")
        if slash:
            spec = self._families.get(short.lower(), {}).get(dist)
            return {dist: spec} if spec else None
        return self._families.get(prefix.lower())

    def component(self, kind: str, name: str) -> ComponentSpec:
        """The spec of the component `name` (or `dist/name`) of a kind."""
        self.load()
        found = self._components.get((kind, name.lower()))
        if found:
            return self._only(kind, name, found)
        if kind == "evaluator" and name.partition(":")[0].endswith(".py"):
            return self._component_from_file(kind, name)
        dist, slash, short = name.partition("/")
        if slash and (spec := self._components.get((kind, short.lower()), {}).get(dist)):
            return spec
        known = [n for k, n in self._components if k == kind]
        raise UnknownNameError.of(kind, name, known, self._broken())

    def _only(self, kind: str, name: str, found: Mapping[str, Any]) -> Any:
        """The user's spec if there is one, else the only one; two distributions are an error."""
        if USER in found:
            return found[USER]
        if len(found) > 1:
            dists = sorted(found)
            raise PluginError(
                f"The {kind} '{name}' is registered by {' and '.join(dists)}.",
                f"Say which: {' or '.join(f'{d}/{name}' for d in dists)}.",
            )
        return next(iter(found.values()))

    def _broken(self) -> str:
        broken = [p for p in self.plugins if p.error]
        return "\n".join(f"The plugin {p.dist} failed to load: {p.error}" for p in broken)

    def recipe(self, name: str) -> Any:
        """The function behind a registered recipe, or behind `./file.py:function`, whose module may
        register components of its own."""
        if not name.partition(":")[0].endswith(".py"):
            return self.target_of(self.component("recipe", name))
        self.load()
        module, attribute = _named_in_file(name, "./my_method.py:my_recipe")
        found = getattr(module, attribute, None)
        if not callable(found):
            raise ConfigError(f"{name.rpartition(':')[0]} has no function '{attribute}'.")
        return found

    def _encoder_from_file(self, name: str) -> EncoderSpec:
        file = name.rpartition(":")[0]
        module, attribute = _named_in_file(name, "./my_encoder.py:MyEncoder")
        found = getattr(module, attribute, None)
        if not isinstance(getattr(found, "spec", None), EncoderSpec):
            raise ConfigError(f"{file} has no Encoder class '{attribute}' with a `spec`.")
        spec = replace(
            found.spec, name=name, aliases=(), target=f"{module.__name__}:{attribute}", local=True
        )
        self._classes[name.lower()] = found
        return spec

    def _component_from_file(self, kind: str, name: str) -> ComponentSpec:
        """The class in a file of the user's own, registered from now on under the name of the
        class; its options are the keywords of its constructor."""
        file = name.rpartition(":")[0]
        module, attribute = _named_in_file(name, f"./my_{kind}.py:My{kind.capitalize()}")
        found = getattr(module, attribute, None)
        if not isinstance(found, type):
            raise ConfigError(f"{file} has no class '{attribute}'.")
        parameters = inspect.signature(found).parameters.values()
        options = {p.name: p.default for p in parameters if p.default is not p.empty}
        self.add_component(kind, attribute, found, **options)
        return self.component(kind, attribute)

    def all_encoders(self) -> list[tuple[str, EncoderSpec | FamilySpec]]:
        """(distribution, spec) of every encoder and family, sorted by modality and name."""
        self.load()
        rows = {(d, s.name): s for by in self._encoders.values() for d, s in by.items()}
        encoders = sorted(rows.items(), key=lambda r: (r[1].modality, r[1].name))
        families = sorted(
            ((d, s) for by in self._families.values() for d, s in by.items()),
            key=lambda r: (r[1].prefix, r[0]),
        )
        return [(d, s) for (d, _), s in encoders] + families

    def all_components(self, kind: str | None = None) -> list[tuple[str, ComponentSpec]]:
        """(distribution, spec) of every component of a kind, or of all kinds."""
        self.load()
        rows = {(d, s.kind, s.name): s for by in self._components.values() for d, s in by.items()}
        keep = [(key[0], s) for key, s in rows.items() if kind in (None, s.kind)]
        return sorted(keep, key=lambda r: (r[1].kind, r[1].name))

    # -- building --------------------------------------------------------------------------------

    def target_of(self, spec: EncoderSpec | ComponentSpec) -> Any:
        """The class or function behind a spec, imported now."""
        key = spec.name if isinstance(spec, EncoderSpec) else f"{spec.kind} {spec.name}"
        return self._classes.get(key.lower()) or load_target(spec.target)

    def check(self, kind: str, part: Part) -> ComponentSpec:
        """The spec behind a part; raises for an unknown name, option or missing package.

        An option whose default is None takes any value; others must keep the type.
        """
        spec = self.component(kind, part.name)
        spec.check_requirements()
        for option, value in part.options.items():
            if option not in spec.options:
                raise UnknownNameError.of(f"option of {kind} '{spec.name}'", option, spec.options)
            default = spec.options[option]
            if not _same_type(default, value):
                raise ConfigError(
                    f"{kind}.{option} is {short(repr(value))}; {spec.name} wants something "
                    f"like {default!r} ({type(default).__name__})."
                )
        return spec

    def build(self, kind: str, part: Part, *args: Any, **kwargs: Any) -> Any:
        """The component that a part names, constructed with `args`, `kwargs` and its options."""
        spec = self.check(kind, part)
        return self.target_of(spec)(*args, **kwargs, **part.options)

    def commands(self, app: Any) -> None:
        """Let every plugin add its commands to the typer app; one that fails is noted as broken."""
        self.load()
        for plugin in self.plugins:
            if plugin.error:
                continue
            commands, groups = len(app.registered_commands), len(app.registered_groups)
            try:
                self._call(self._manager.get_plugin(plugin.name), "fusemix_commands", app)
                if taken := [n for n, k in Counter(_command_names(app)).items() if k > 1]:
                    raise PluginError(f"There is a command '{taken[0]}' already.")
            except (Exception, SystemExit) as error:
                plugin.error = _summary(error)
                del app.registered_commands[commands:], app.registered_groups[groups:]


def _command_names(app: Any) -> list[str]:
    """Names of a typer app's commands and groups."""
    commands = [c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands]
    return commands + [group.name for group in app.registered_groups]


def _summary(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip() or type(error).__name__


def _same_type(default: Any, value: Any) -> bool:
    if default is None or value is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple)
    return isinstance(value, type(default))


def _named_in_file(name: str, example: str) -> tuple[ModuleType, str]:
    """(module, attribute) of `./file.py:attribute`."""
    file, _, attribute = name.rpartition(":")
    if not file or "/" in attribute:
        raise ConfigError(f"'{name}' names nothing in a file.", f"Example: {example}")
    return import_file(Path(file)), attribute


def import_file(path: Path) -> ModuleType:
    """The module in a Python file that the user named, imported once."""
    if not os.path.isfile(path):
        raise ConfigError(f"{short(path)} does not exist.", "Example: ./my_encoder.py:MyEncoder")
    path = path.resolve()
    name = f"fusemix_user_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    return module


registry = Registry()
"""The registry that the command line and the library use."""
