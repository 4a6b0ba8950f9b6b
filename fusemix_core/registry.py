"""Finds encoders, components and modalities by name, and builds them."""

from __future__ import annotations

import inspect
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fusemix_core.config import Part
from fusemix_core.discovery import CORE, Declared, EntryPoints, Plugin, discover, installed
from fusemix_core.errors import ConfigError, PluginError, UnknownNameError, short
from fusemix_core.specs import (
    ComponentSpec,
    EncoderSpec,
    FamilySpec,
    ModalitySpec,
    check_requirements,
    load_target,
)
from fusemix_core.userfile import import_file, in_file, named_in_file

__all__ = ["CORE", "USER", "Plugin", "Registry", "registry"]

USER = "user"


class Registry:
    """Encoders and components of all plugins, and those that user code adds.

    `entry_points` replaces discovery (tests). `FUSEMIX_PLUGINS=a,b` restricts which plugins load,
    by entry-point or distribution name; fusemix itself always does.
    """

    def __init__(self, entry_points: EntryPoints = installed) -> None:
        self._entry_points = entry_points
        self._loaded = False
        self.plugins: list[Plugin] = []
        self.files: list[str] = []
        self._modules: dict[str, Any] = {}
        self._encoders: dict[str, dict[str, EncoderSpec]] = defaultdict(dict)
        self._families: dict[str, dict[str, FamilySpec]] = defaultdict(dict)
        self._components: dict[tuple[str, str], dict[str, ComponentSpec]] = defaultdict(dict)
        self._modalities: dict[str, dict[str, ModalitySpec]] = defaultdict(dict)
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
        for plugin, module, declared in discover(self._entry_points):
            self.plugins.append(plugin)
            if declared is not None:
                self._modules[plugin.name] = module
                self._take(declared, plugin.dist)

    def module_of(self, plugin: Plugin) -> Any:
        """What the entry point of a plugin names; None for a broken one."""
        return self._modules.get(plugin.name)

    def load_file(self, path: str | Path) -> None:
        """Register what a Python file of the user's brings, as `fusemix --plugin FILE` does.

        The file is imported. It may call `registry.add…` itself, have functions named as the hooks
        (`fusemix_components`, …), and Encoder classes with a `spec`. What it registers wins over
        plugins. Never called for a path that comes from data, a config or a saved model.
        """
        module = import_file(Path(path).expanduser())
        self._take(Declared.of(module), USER)
        for thing in vars(module).values():
            own = getattr(thing, "__module__", "") == module.__name__
            if own and isinstance(getattr(thing, "spec", None), EncoderSpec):
                self.add(thing)
        file = str(module.__file__)
        if file not in self.files:
            self.files.append(file)

    def _take(self, declared: Declared, dist: str) -> None:
        for spec in declared.encoders:
            self._add_encoder_spec(spec, dist)
        for component in declared.components:
            self._add_component_spec(component, dist)
        for modality in declared.modalities:
            self._modalities[modality.name][dist] = modality

    def _add_encoder_spec(self, spec: EncoderSpec | FamilySpec, dist: str) -> None:
        if isinstance(spec, FamilySpec):
            self._families[spec.prefix.lower()][dist] = spec
            return
        for name in (spec.name, *spec.aliases):
            self._encoders[name.lower()][dist] = spec

    def _add_component_spec(self, spec: ComponentSpec, dist: str) -> None:
        for name in (spec.name, *spec.aliases):
            self._components[spec.kind, name.lower()][dist] = spec

    def add(self, thing: type | EncoderSpec | FamilySpec | ComponentSpec | ModalitySpec) -> Any:
        """Register from user code: an Encoder class (with its `spec`), or any spec.

        Returns `thing`, so that it serves as a decorator. What the user adds wins over plugins.
        """
        if isinstance(thing, EncoderSpec | FamilySpec):
            self._add_encoder_spec(thing, USER)
        elif isinstance(thing, ComponentSpec):
            self._add_component_spec(thing, USER)
        elif isinstance(thing, ModalitySpec):
            self._modalities[thing.name][USER] = thing
        elif isinstance(getattr(thing, "spec", None), EncoderSpec):
            self._add_encoder_spec(thing.spec, USER)
            self._classes[thing.spec.name.lower()] = thing
        else:
            raise ConfigError(
                f"{thing!r} can't be registered.",
                "Give an Encoder class with a `spec`, an EncoderSpec, or a ComponentSpec.",
            )
        return thing

    def add_component(
        self, kind: str, name: str, target: type, *, wraps: str = "", **options: Any
    ) -> type:
        """Register a component class of user code under `name`.

        `options` are its options with their defaults; without any, those of its signature. What it
        uses is what the class says; for `wraps` see `ComponentSpec`.

        Example:
            registry.add_component("objective", "vicreg", VICReg)
        """
        spec = ComponentSpec(
            kind=kind,
            name=name,
            target=f"{target.__module__}:{target.__qualname__}",
            options=options or options_of(target),
            uses=getattr(target, "uses", ()),
            wraps=wraps,
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
        if in_file(base):
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
        return self.settled(spec)

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
        if kind in _IN_FILES and in_file(name):
            return self._component_from_file(kind, name)
        dist, slash, short = name.partition("/")
        if slash and (spec := self._components.get((kind, short.lower()), {}).get(dist)):
            return spec
        known = [n for k, n in self._components if k == kind]
        own = _OWN.get(kind, "")
        raise UnknownNameError.of(kind, name, known, f"{own}\n{self._broken()}".strip())

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
        if not in_file(name):
            return self.target_of(self.component("recipe", name))
        self.load()
        module, attribute = named_in_file(name, "./my_method.py:my_recipe")
        found = getattr(module, attribute, None)
        if not callable(found):
            raise ConfigError(f"{name.rpartition(':')[0]} has no function '{attribute}'.")
        return found

    def _encoder_from_file(self, name: str) -> EncoderSpec:
        file = name.rpartition(":")[0]
        module, attribute = named_in_file(name, "./my_encoder.py:MyEncoder")
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
        module, attribute = named_in_file(name, f"./my_{kind}.py:My{kind.capitalize()}")
        found = getattr(module, attribute, None)
        if not isinstance(found, type):
            raise ConfigError(f"{file} has no class '{attribute}'.")
        self.add_component(kind, attribute, found)
        return self.component(kind, attribute)

    def settled(self, spec: EncoderSpec) -> EncoderSpec:
        """The spec with `takes` filled in: the medium of its modality, or `text`."""
        if spec.takes is not None:
            return spec
        modality = self.modality(spec.modality)
        return replace(spec, takes=modality.medium if modality else "text")

    def modality(self, name: str) -> ModalitySpec | None:
        """What is declared of a modality, by all plugins together; None for an undeclared one.
        What the user adds comes first.

        Raises `PluginError` if two plugins declare different media.
        """
        self.load()
        found = self._modalities.get(name)
        if not found:
            return None
        declared = [found[dist] for dist in sorted(found, key=lambda d: (d != USER, d))]
        if USER not in found and len({spec.medium for spec in declared}) > 1:
            media = " and ".join(f"{found[d].medium} ({d})" for d in sorted(found))
            raise PluginError(
                f"The modality '{name}' is declared with different media: {media}.",
                "Say `takes` in the encoder's spec and remove one plugin, or restrict "
                "FUSEMIX_PLUGINS.",
            )
        return _united(declared)

    def all_modalities(self) -> list[ModalitySpec]:
        """Every declared modality, in order of name."""
        self.load()
        return [self.modality(name) for name in sorted(self._modalities)]

    def all_encoders(self) -> list[tuple[str, EncoderSpec | FamilySpec]]:
        """(distribution, spec) of every encoder and family, sorted by modality and name."""
        self.load()
        rows = {
            (d, s.name): self.settled(s) for by in self._encoders.values() for d, s in by.items()
        }
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

        An option whose default is None takes any value; others must keep the type. A component that
        it wraps is checked likewise.
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
        if spec.wraps:
            self.check(kind, _wrapped(spec, part))
        return spec

    def uses(self, kind: str, part: Part) -> tuple[str, ...]:
        """What the component that a part names uses (`USES`), with what those use that it wraps.

        Nothing heavy is imported. Raises as `check`.
        """
        spec = self.check(kind, part)
        inner = self.uses(kind, _wrapped(spec, part)) if spec.wraps else ()
        return tuple(dict.fromkeys((*spec.uses, *inner)))

    def build(self, kind: str, part: Part, *args: Any, **kwargs: Any) -> Any:
        """The component that a part names, constructed with `args`, `kwargs` and its options."""
        spec = self.check(kind, part)
        return self.target_of(spec)(*args, **kwargs, **part.options)


_IN_FILES = ("evaluator", "reader")
"""The kinds that may be named as `./file.py:Name`: no saved model names any of these."""
_OWN = {
    "recipe": "A function of your own that returns a Recipe: ./file.py:function",
    "reader": "A class of your own: ./file.py:Name",
    "evaluator": "A class of your own: ./file.py:Name",
}
"""How to name one that is not registered."""


def options_of(target: Any) -> dict[str, Any]:
    """The keyword options of a component with their defaults, from its signature."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _united(declared: list[ModalitySpec]) -> ModalitySpec:
    """One spec with what all say; the words of each are kept in their order."""
    first, *others = declared
    for other in others:
        changed = {}
        for field in fields(ModalitySpec):
            old, new = getattr(first, field.name), getattr(other, field.name)
            changed[field.name] = (
                tuple(dict.fromkeys(old + new)) if isinstance(old, tuple) else old or new
            )
        first = ModalitySpec(**changed)
    return first


def _wrapped(spec: ComponentSpec, part: Part) -> Part:
    """The component that another one builds, by its options."""
    values = {**spec.options, **part.options}
    return Part(values[spec.wraps], dict(values["options"]))


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


registry = Registry()
"""The registry that the command line and the library use."""
