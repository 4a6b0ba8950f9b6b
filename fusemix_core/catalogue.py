"""Everything that plugins and user code declare, by name: encoders, generators, components, …"""

from __future__ import annotations

import inspect
from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from fusemix_core.discovery import Declared, EntryPoints, Plugin, discover, installed
from fusemix_core.errors import ConfigError, PluginError
from fusemix_core.specs import (
    ComponentSpec,
    EncoderSpec,
    FamilySpec,
    GeneratorSpec,
    ModalitySpec,
    ModelledSpec,
    ModelSpec,
    plain_modality,
)
from fusemix_core.userfile import import_file

S = TypeVar("S", EncoderSpec, GeneratorSpec)

USER = "user"
"""The distribution of what user code adds."""


class Shelf(Generic[S]):
    """The encoders, or the generators, and their families: by name and distribution.

    Args:
        kind: `encoder` or `generator`.
        spec: The class of their specs.
    """

    def __init__(self, kind: str, spec: type[S]) -> None:
        self.kind, self.spec = kind, spec
        self.specs: dict[str, dict[str, S]] = defaultdict(dict)
        self.families: dict[str, dict[str, FamilySpec]] = defaultdict(dict)

    def add(self, spec: S | FamilySpec, dist: str) -> None:
        """Put a spec under its name and aliases, and a family under its prefix."""
        if isinstance(spec, FamilySpec):
            self.families[spec.prefix.lower()][dist] = spec
            return
        for name in (spec.name, *spec.aliases):
            self.specs[name.lower()][dist] = spec

    def family(self, prefix: str) -> dict[str, FamilySpec] | None:
        """distribution → family, of `prefix` or `dist/prefix`."""
        dist, slash, short = prefix.partition("/")
        if slash:
            spec = self.families.get(short.lower(), {}).get(dist)
            return {dist: spec} if spec else None
        return self.families.get(prefix.lower())

    def all_specs(self) -> list[tuple[str, S]]:
        """(distribution, spec), each once."""
        rows = {(d, s.name): s for by in self.specs.values() for d, s in by.items()}
        return [(dist, spec) for (dist, _), spec in rows.items()]

    def all_families(self) -> list[tuple[str, FamilySpec]]:
        """(distribution, family), sorted by prefix."""
        rows = [(d, s) for by in self.families.values() for d, s in by.items()]
        return sorted(rows, key=lambda r: (r[1].prefix, r[0]))


class Catalogue:
    """All that is declared, by name and by the distribution that declares it."""

    def __init__(self, entry_points: EntryPoints = installed) -> None:
        self._entry_points = entry_points
        self._loaded = False
        self.plugins: list[Plugin] = []
        self.files: list[str] = []
        self._modules: dict[str, Any] = {}
        self._encoders = Shelf("encoder", EncoderSpec)
        self._generators = Shelf("generator", GeneratorSpec)
        self._components: dict[tuple[str, str], dict[str, ComponentSpec]] = defaultdict(dict)
        self._modalities: dict[str, dict[str, ModalitySpec]] = defaultdict(dict)
        self._models: dict[str, ModelSpec] = {}
        self._classes: dict[str, type] = {}

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
                self._models |= {f"{plugin.name}:{model.name}": model for model in declared.models}

    def module_of(self, plugin: Plugin) -> Any:
        """What the entry point of a plugin names; None for a broken one."""
        return self._modules.get(plugin.name)

    def load_file(self, path: str | Path) -> None:
        """Register what a Python file of the user's brings, as `fusemix --plugin FILE` does.

        The file is imported. It may call `registry.add…` itself, have functions named as the hooks
        (`fusemix_components`, …), and Encoder and Generator classes with a `spec`. What it
        registers wins over plugins. Never called for a path that comes from data, a config or a
        saved model.
        """
        module = import_file(Path(path).expanduser())
        self._take(Declared.of(module), USER)
        for thing in vars(module).values():
            own = getattr(thing, "__module__", "") == module.__name__
            if own and isinstance(getattr(thing, "spec", None), ModelledSpec):
                self.add(thing)
        file = str(module.__file__)
        if file not in self.files:
            self.files.append(file)

    def _take(self, declared: Declared, dist: str) -> None:
        for spec in declared.encoders:
            self._encoders.add(spec, dist)
        for generator in declared.generators:
            self._generators.add(generator, dist)
        for component in declared.components:
            self._add_component_spec(component, dist)
        for modality in declared.modalities:
            self._modalities[modality.name][dist] = modality

    def _add_component_spec(self, spec: ComponentSpec, dist: str) -> None:
        for name in (spec.name, *spec.aliases):
            self._components[spec.kind, name.lower()][dist] = spec

    def add(self, thing: type | ModelledSpec | FamilySpec | ComponentSpec | ModalitySpec) -> Any:
        """Register from user code: an Encoder or Generator class (with its `spec`), or any spec. A
        family is one of encoders.

        Returns `thing`, so that it serves as a decorator. What the user adds wins over plugins.
        """
        if isinstance(thing, EncoderSpec | FamilySpec):
            self._encoders.add(thing, USER)
        elif isinstance(thing, GeneratorSpec):
            self._generators.add(thing, USER)
        elif isinstance(thing, ComponentSpec):
            self._add_component_spec(thing, USER)
        elif isinstance(thing, ModalitySpec):
            self._modalities[thing.name][USER] = thing
        elif isinstance(spec := getattr(thing, "spec", None), ModelledSpec):
            self.add(spec)
            self._classes[key_of(spec)] = thing
        else:
            raise ConfigError(
                f"{thing!r} can't be registered.",
                "Give an Encoder or Generator class with a `spec`, an EncoderSpec, a "
                "GeneratorSpec, or a ComponentSpec.",
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
        self._classes[key_of(spec)] = target
        return target

    def settled(self, spec: EncoderSpec) -> EncoderSpec:
        """The spec with `takes` filled in: the medium of its modality, or `text`."""
        if spec.takes:
            return spec
        modality = self.modality(spec.modality)
        return replace(spec, takes=modality.medium if modality else "text")

    def modality(self, name: str) -> ModalitySpec | None:
        """What is declared of a modality, by all plugins together; None for an undeclared one.
        What the user adds comes first. `image:front` is declared as `image` is.

        Raises `PluginError` if two plugins declare different media.
        """
        self.load()
        found = self._modalities.get(name) or self._modalities.get(plain_modality(name))
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
        names = sorted(self._modalities)
        return [found for name in names if (found := self.modality(name)) is not None]

    def all_models(self) -> dict[str, ModelSpec]:
        """`PLUGIN:NAME` → the saved model that a plugin's package contains."""
        self.load()
        return dict(self._models)

    def all_encoders(self) -> list[tuple[str, EncoderSpec | FamilySpec]]:
        """(distribution, spec) of every encoder and family, sorted by modality and name."""
        self.load()
        rows = [(dist, self.settled(spec)) for dist, spec in self._encoders.all_specs()]
        rows.sort(key=lambda r: (r[1].modality, r[1].name))
        return [*rows, *self._encoders.all_families()]

    def all_generators(self) -> list[tuple[str, GeneratorSpec | FamilySpec]]:
        """(distribution, spec) of every generator and family, sorted by name."""
        self.load()
        rows = sorted(self._generators.all_specs(), key=lambda r: (r[1].makes, r[1].name))
        return [*rows, *self._generators.all_families()]

    def all_components(self, kind: str | None = None) -> list[tuple[str, ComponentSpec]]:
        """(distribution, spec) of every component of a kind, or of all kinds."""
        self.load()
        rows = {(d, s.kind, s.name): s for by in self._components.values() for d, s in by.items()}
        keep = [(key[0], s) for key, s in rows.items() if kind in (None, s.kind)]
        return sorted(keep, key=lambda r: (r[1].kind, r[1].name))


def key_of(spec: ModelledSpec | ComponentSpec) -> str:
    """By what a class of the user's is known: the kind and name of its spec."""
    if isinstance(spec, ComponentSpec):
        return f"{spec.kind} {spec.name.lower()}"
    kind = "generator " if isinstance(spec, GeneratorSpec) else ""
    return f"{kind}{spec.name.lower()}"


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
        changed: dict[str, Any] = {}
        for field in fields(ModalitySpec):
            old, new = getattr(first, field.name), getattr(other, field.name)
            changed[field.name] = (
                tuple(dict.fromkeys(old + new)) if isinstance(old, tuple) else old or new
            )
        first = ModalitySpec(**changed)
    return first
