"""Writes a new plugin: a pip package with one encoder, generator or component that works, for its
author to replace."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from string import Template

from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.registry import Registry, registry
from fusemix_core.scaffold.components import TEMPLATES, facts_of, files_of, use_of
from fusemix_core.specs import EncoderSpec, GeneratorSpec
from fusemix_core.versions import version

_FACTS = {
    "image": (384, "patch colours", "image_size=64,"),
    "audio": (128, "spectrum statistics", "sample_rate=16_000,"),
    "text": (256, "hashed letter triples", ""),
    "file": (256, "shares of byte values", ""),
}
"""What the encoder takes → the width of its latents, what they are, and facts of its spec."""


@dataclass(frozen=True)
class NewPlugin:
    """What was written: the folder, the name of the distribution, that of its encoder or component,
    which kind this is (`encoder`, `generator`, or one of `KINDS`), and a command that uses it."""

    folder: Path
    name: str
    component: str
    kind: str
    use: str


def write_plugin(
    name: str,
    modality: str,
    out: Path = Path(),
    *,
    takes: str | None = None,
    registry: Registry = registry,
) -> NewPlugin:
    """Write the package `name` with an encoder of a modality into the new folder `out / name`.

    The encoder is called as the package, without a leading `fusemix-`. takes: `text` or `file`, for
    a modality of which fusemix does not know how its items reach an encoder (default: text).
    Raises ConfigError for a name that can't be used, and for a folder that exists.
    """
    package, encoder = name.replace("-", "_"), name.removeprefix("fusemix-")
    _check_names(name, package, "encoder")
    _check_modality(modality)
    _check_encoder(name, encoder, registry)
    kind = takes or registry.settled(EncoderSpec(name=encoder, modality=modality, target="")).takes
    known = modality in ("image", "audio", "text")
    if kind not in (_FACTS if not takes else ("text", "file")) or (known and takes):
        raise ConfigError(
            f"An encoder of {modality} can't take '{takes}'.",
            "--takes is text or file, and only for a modality that fusemix does not know.",
        )
    folder = _new_folder(out, name)
    dim, summary, facts = _FACTS[kind]
    values = {
        "name": name,
        "package": package,
        "encoder": encoder,
        "Class": _class_name(encoder, "encoder"),
        "modality": modality,
        "dim": dim,
        "summary": summary,
        "facts": "".join(
            f"\n    {fact}"
            for fact in (facts, f'takes="{kind}",' if takes else "", 'licence="none: no weights",')
            if fact
        ),
        "sample_items": "" if known or kind == "file" else _template("sample_items.py"),
    }
    written = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        ".gitignore": "gitignore",
        f"src/{package}/__init__.py": "init.py",
        f"src/{package}/encoder.py": f"encoder_{kind}.py",
        f"tests/test_{package}.py": "test.py",
    }
    _write(folder, written, values)
    return NewPlugin(folder, name, encoder, "encoder", f"fusemix encoders check {encoder}")


def write_component(
    name: str, kind: str, out: Path = Path(), *, registry: Registry = registry
) -> NewPlugin:
    """Write the package `name` with a component of a kind into the new folder `out / name`.

    The component is called as the package, without a leading `fusemix-`.
    Raises ConfigError for a name that can't be used, and for a folder that exists.
    """
    package, component = name.replace("-", "_"), name.removeprefix("fusemix-")
    if kind not in TEMPLATES:
        raise UnknownNameError.of("kind of plugin", kind, ["encoder", "generator", *TEMPLATES])
    _check_names(name, package, kind)
    for dist, spec in registry.all_components(kind):
        if component in (spec.name, *spec.aliases):
            raise ConfigError(
                f"{dist} has a component named '{kind} {component}' already.",
                f"Give {name} another name: its {kind} is called as it, without 'fusemix-'.",
            )
    values = {
        "name": name,
        "package": package,
        "component": component,
        "kind": kind,
        "Class": _class_name(component, kind),
        "function": component.replace("-", "_"),
        "summary": TEMPLATES[kind].summary,
        "facts": facts_of(kind),
        "use": use_of(kind, component),
    }
    folder = _new_folder(out, name)
    _write(folder, files_of(kind, package), values)
    return NewPlugin(folder, name, component, kind, use_of(kind, component))


def write_generator(
    name: str, out: Path = Path(), *, space: str = "minilm", registry: Registry = registry
) -> NewPlugin:
    """Write the package `name` with a generator into the new folder `out / name`.

    The generator is called as the package, without a leading `fusemix-`.

    Args:
        space: The registered encoder whose latents condition it.

    Raises:
        ConfigError: The name can't be used, the folder exists, or the encoder's width isn't known.
        UnknownNameError: There is no such encoder.
    """
    package, generator = name.replace("-", "_"), name.removeprefix("fusemix-")
    _check_names(name, package, "generator")
    for dist, spec in registry.all_generators():
        if isinstance(spec, GeneratorSpec) and generator in (spec.name, *spec.aliases):
            raise ConfigError(
                f"{dist} has a generator named '{generator}' already.",
                f"Give {name} another name: its generator is called as it, without 'fusemix-'.",
            )
    dim = registry.encoder(space).dim
    if dim is None:
        raise ConfigError(
            f"The encoder '{space}' doesn't say how wide its latents are.", "Take another --space."
        )
    values = {
        "name": name,
        "package": package,
        "component": generator,
        "kind": "generator",
        "Class": _class_name(generator, "generator"),
        "summary": "waves of colour",
        "space": space,
        "dim": dim,
    }
    written = {
        "pyproject.toml": "component_pyproject.toml",
        "README.md": "generator_README.md",
        ".gitignore": "gitignore",
        f"src/{package}/__init__.py": "generator_init.py",
        f"src/{package}/generator.py": "generator.py",
        f"tests/test_{package}.py": "component_test.py",
    }
    folder = _new_folder(out, name)
    _write(folder, written, values)
    check = f"fusemix generators check {generator}"
    return NewPlugin(folder, name, generator, "generator", check)


def _class_name(name: str, kind: str) -> str:
    return "".join(part.capitalize() for part in name.split("-")) + kind.capitalize()


def _new_folder(out: Path, name: str) -> Path:
    folder = out / name
    if folder.exists():
        raise ConfigError(f"{folder} exists already.", "Give another NAME, or another --out.")
    return folder


def _write(folder: Path, files: Mapping[str, str], values: Mapping[str, object]) -> None:
    """Write each file of a package from its template; it asks for this minor version of fusemix."""
    values = {**values, "floor": ".".join(version().split(".")[:2])}
    for path, template in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(Template(_template(template)).substitute(values), "utf-8")


def _template(name: str) -> str:
    return files("fusemix_core.scaffold").joinpath("files", f"{name}.tmpl").read_text("utf-8")


def _check_names(name: str, package: str, kind: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ConfigError(
            f"'{name}' can't be the name of a package.",
            "Small letters, digits and single dashes, a letter first: fusemix-birds",
        )
    dists = {d.name.lower().replace("_", "-") for d in metadata.distributions()}
    taken = package in sys.stdlib_module_names or importlib.util.find_spec(package) is not None
    if taken or name in dists or keyword.iskeyword(package):
        own = name.removeprefix("fusemix-")
        raise ConfigError(
            f"Python knows '{package}' already.", f"Call it, for example, fusemix-{own}-{kind}."
        )


def _check_modality(modality: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", modality):
        raise ConfigError(
            f"'{modality}' can't be the name of a modality.",
            "Small letters, digits and underscores: image, text, audio, video, protein, …",
        )


def _check_encoder(name: str, encoder: str, registry: Registry) -> None:
    for dist, spec in registry.all_encoders():
        if isinstance(spec, EncoderSpec) and encoder in (spec.name, *spec.aliases):
            raise ConfigError(
                f"{dist} has an encoder named '{encoder}' already.",
                f"Give {name} another name: its encoder is called as it, without 'fusemix-'.",
            )
