"""Finds encoders, generators, components and modalities by name, and builds them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusemix_core.catalogue import USER, Catalogue, S, Shelf, key_of
from fusemix_core.config import Part, parse_part
from fusemix_core.discovery import CORE, Plugin
from fusemix_core.errors import ConfigError, PluginError, UnknownNameError, short
from fusemix_core.specs import (
    LEARNT,
    ComponentSpec,
    EncoderSpec,
    GeneratorSpec,
    ModelledSpec,
    check_requirements,
    load_target,
    plain_modality,
)
from fusemix_core.userfile import in_file, named_in_file

__all__ = ["CORE", "USER", "Plugin", "Registry", "registry"]


class Registry(Catalogue):
    """Encoders and components of all plugins, and those that user code adds: by name, and built.

    `entry_points` replaces discovery (tests). `FUSEMIX_PLUGINS=a,b` restricts which plugins load,
    by entry-point or distribution name; fusemix itself always does.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Registry:
        """The same: a copy of a model finds its components as the model does."""
        return self

    def __reduce__(self) -> str:
        """In a pickle the registry of the process that reads it stands for that of this process."""
        if self is not registry:
            raise TypeError(
                "A Registry of your own can't be pickled: register in "
                "fusemix_core.registry.registry."
            )
        return "registry"

    # -- looking up ------------------------------------------------------------------------------

    def encoder(self, name: str, modality: str | None = None) -> EncoderSpec:
        """The spec of `name`, `dist/name`, `family:name`, `NAME@PATH` or `./file.py:Class`; of a
        fitted encoder also with options: `NAME KEY=VALUE …`.

        `modality` is what the user calls it: a family may need it to know what a model reads.
        """
        self.load()
        if _OPTIONS.search(name) and not os.path.exists(name.partition("@")[2]):
            part = parse_part(name)
            return _with_options(self.encoder(part.name, modality), part.options)
        spec = self._found(self._encoders, name, modality and plain_modality(modality))
        return self.settled(spec)

    def generator(self, name: str, makes: str | None = None) -> GeneratorSpec:
        """The spec of `name`, `dist/name`, `family:name`, `NAME@PATH` or `./file.py:Class`.

        `makes` is the modality that a family's generator makes, if the user says it.
        """
        self.load()
        return self._found(self._generators, name, makes)

    def _found(self, shelf: Shelf[S], name: str, modality: str | None) -> S:
        """The spec that a name of any form means."""
        base, at, path = name.partition("@")
        weights = Path(os.path.expanduser(path)) if at else None
        if weights and not os.path.exists(weights):
            raise ConfigError(f"'{short(name)}': {short(weights)} does not exist.")
        spec = self._from_file(shelf, base) if in_file(base) else None
        spec = spec or self._named(shelf, base, modality, weights)
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

    def _named(self, shelf: Shelf[S], name: str, modality: str | None, path: Path | None) -> S:
        kind = shelf.kind
        if found := shelf.specs.get(name.lower()):
            return self._only(kind, name, found)
        prefix, colon, rest = name.partition(":")
        if colon:
            family = shelf.family(prefix)
            if not family:
                raise UnknownNameError.of(
                    f"{kind} family",
                    f"{prefix}:",
                    [f"{p}:" for p in shelf.families],
                    self._broken(),
                )
            opened = self._only(f"{kind} family", prefix, family)
            check_requirements(name, opened.requires)
            return load_target(opened.resolve)(rest, modality, path)
        dist, slash, short = name.partition("/")
        if slash and (spec := shelf.specs.get(short.lower(), {}).get(dist)):
            return spec
        families = ", ".join(f"{p}:NAME" for p in sorted(shelf.families))
        note = f"Each {kind} comes with a plugin, a pip package: fusemix {kind}s list"
        note += f"\nBy a prefix: {families}" if families else ""
        raise UnknownNameError.of(kind, name, shelf.specs, f"{note}\n{self._broken()}".strip())

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

    def _from_file(self, shelf: Shelf[S], name: str) -> S:
        file, kind = name.rpartition(":")[0], shelf.kind
        module, attribute = named_in_file(name, f"./my_{kind}.py:My{kind.capitalize()}")
        found = getattr(module, attribute, None)
        given = getattr(found, "spec", None)
        if found is None or not isinstance(given, shelf.spec):
            raise ConfigError(
                f"{file} has no {kind.capitalize()} class '{attribute}' with a `spec`."
            )
        target = f"{module.__name__}:{attribute}"
        spec = replace(given, name=name, aliases=(), target=target, local=True)
        self._classes[key_of(spec)] = found
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

    # -- building --------------------------------------------------------------------------------

    def target_of(self, spec: ModelledSpec | ComponentSpec) -> Any:
        """The class or function behind a spec, imported now."""
        return self._classes.get(key_of(spec)) or load_target(spec.target)

    def spec_of(self, kind: str, target: type) -> ComponentSpec:
        """The spec of a component class; found by its path if possible, which imports no plugin.

        Raises `ConfigError` for a class that nobody registered.
        """
        path = f"{target.__module__}:{target.__qualname__}"
        specs = [spec for _, spec in self.all_components(kind)]
        by_path = (spec for spec in specs if spec.target == path)
        by_class = (spec for spec in specs if self.target_of(spec) is target)
        spec = next(by_path, None) or next(by_class, None)
        if spec is None:
            raise ConfigError(
                f"{target.__name__} is not registered as {kind}, so a saved model can't name it.",
                f"registry.add_component('{kind}', 'a-name', {target.__name__})",
            )
        return spec

    def check(self, kind: str, part: Part) -> ComponentSpec:
        """The spec behind a part; raises for an unknown name, option or missing package.

        An option whose default is None takes any value; others must keep the type. A component that
        it wraps is checked likewise.
        """
        return self._check(kind, part, kind)

    def _check(self, kind: str, part: Part, at: str) -> ComponentSpec:
        """`check` of a part whose options are set by `at`.KEY."""
        spec = self.component(kind, part.name)
        spec.check_requirements()
        for option, value in part.options.items():
            if option not in spec.options:
                note = f'It is in {at}: --set "{at}={{}}" clears that.' if at != kind else ""
                kinds = f"option of {kind} '{spec.name}'"
                if not spec.options:
                    raise ConfigError(
                        f"The {kind} '{spec.name}' has no options, so '{option}' can't be set.",
                        note,
                    )
                raise UnknownNameError.of(kinds, option, spec.options, note)
            default = spec.options[option]
            if not _same_type(default, value):
                raise ConfigError(
                    f"{at}.{option} is {short(repr(value))}; {spec.name} wants something "
                    f"like {default!r} ({type(default).__name__})."
                )
        if spec.wraps:
            self._check(kind, _wrapped(spec, part), f"{at}.options")
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


_OPTIONS = re.compile(r"\s\w+=")
"""Options that follow the name of an encoder."""


def _with_options(spec: EncoderSpec, options: Mapping[str, Any]) -> EncoderSpec:
    """The spec of a fitted encoder with options that the user sets. Raises for one that it has
    not."""
    if not spec.fitted:
        raise ConfigError(
            f"The encoder '{spec.name}' takes no options.", f"Only its name: {spec.name}"
        )
    known = {key: value for key, value in spec.options.items() if key != LEARNT}
    check_options("encoder", spec.name, known, options)
    return replace(spec, options={**spec.options, **options})


def check_options(
    kind: str, name: str, known: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Raise `ConfigError` for an option that a model has not, or a value of another type.

    Args:
        kind: What the model is, such as `encoder`.
        name: Its name.
        known: Its options with their defaults. One whose default is None takes any value.
        options: Those that the user sets.
    """
    for option, value in options.items():
        if option not in known:
            raise UnknownNameError.of(f"option of {kind} '{name}'", option, known)
        if not _same_type(default := known[option], value):
            raise ConfigError(
                f"{option} is {short(repr(value))}; {name} wants something like {default!r} "
                f"({type(default).__name__})."
            )


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
