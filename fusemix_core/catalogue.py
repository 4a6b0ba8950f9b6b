"""What plugins and user code declare: encoders, families, components and modalities."""

from __future__ import annotations

import inspect
from collections import defaultdict
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fusemix_core.discovery import Declared, EntryPoints, Plugin, discover, installed
from fusemix_core.errors import ConfigError, PluginError
from fusemix_core.specs import (
    ComponentSpec,
    EncoderSpec,
    FamilySpec,
    ModalitySpec,
    ModelSpec,
    plain_modality,
)
from fusemix_core.userfile import import_file

USER = "user"
"""The distribution of what user code adds."""


class Catalogue:
    """All that is declared, by name and by the distribution that declares it."""

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
        rows = {
            (d, s.name): self.settled(s) for by in self._encoders.values() for d, s in by.items()
        }
        encoders = sorted(rows.items(), key=lambda r: (r[1].modality, r[1].name))
        families = sorted(
            ((d, s) for by in self._families.values() for d, s in by.items()),
            key=lambda r: (r[1].prefix, r[0]),
        )
        return [*((d, s) for (d, _), s in encoders), *families]

    def all_components(self, kind: str | None = None) -> list[tuple[str, ComponentSpec]]:
        """(distribution, spec) of every component of a kind, or of all kinds."""
        self.load()
        rows = {(d, s.kind, s.name): s for by in self._components.values() for d, s in by.items()}
        keep = [(key[0], s) for key, s in rows.items() if kind in (None, s.kind)]
        return sorted(keep, key=lambda r: (r[1].kind, r[1].name))


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
