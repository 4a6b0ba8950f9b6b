"""What `config.json` of a saved model contains.

Components appear by their registered names. Nothing in the file is a class path, a file to run or
an address to fetch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from fusemix_core.config import ComputeDtype
from fusemix_core.errors import ConfigError
from fusemix_core.registry import USER, Registry, registry
from fusemix_core.specs import KINDS, EncoderSpec, FamilySpec

FORMAT = 3
"""That of a model with a rotation or corrections; one without has format 2, as fusemix 0.2.0 writes
it. Raised when an older fusemix could not read, or would misread, what this one writes."""

_MODALITY = re.compile(r"\w[\w-]*(:\w[\w-]*)?")
_PART = re.compile(r"[a-z]+(\.\w[\w-]*(:\w[\w-]*)?)?")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class EncoderInfo:
    """What a saved model knows of the encoder that its latents of one modality came from.

    `dim` is the width of those latents as the adapter gets them, one row per item (`[n, L, d]` as
    `[n, L * d]`), or of one token if the adapter takes tokens of any number;
    `fingerprint` the encoder's when they were taken, `dist` the distribution that registered
    `name` (empty: user code); `options` those of a fitted encoder, `learnt` among them.
    """

    name: str
    modality: str
    dim: int
    fingerprint: str
    view: str
    dtype: ComputeDtype = "float32"
    takes: str = "text"
    dist: str = ""
    licence: str = ""
    weights: str = ""
    revision: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        spec: EncoderSpec,
        *,
        modality: str,
        dim: int,
        fingerprint: str,
        view: str,
        dtype: ComputeDtype = "float32",
        registry: Registry = registry,
    ) -> EncoderInfo:
        """The info of a spec. Folders of local files are left out: a model may be published."""
        return cls(
            name=_without_folders(spec.name) if spec.local else spec.name,
            modality=modality,
            dim=dim,
            fingerprint=fingerprint,
            view=view,
            dtype=dtype,
            takes=registry.settled(spec).takes or "text",
            dist=_distribution(spec, registry),
            licence=spec.licence,
            weights="" if spec.local else spec.weights,
            revision=spec.revision,
            options=as_json(spec.options, "options") if spec.fitted else {},
        )

    @property
    def registered(self) -> bool:
        """Whether `name` can only mean an encoder that an installed plugin registered.

        False for a family (`timm:x`), for `NAME@PATH` and for a Python file: these would fetch or
        run what the saved model says, so only the user may name them.
        """
        return not (":" in self.name or "@" in self.name or self.name.lower().endswith(".py"))


@dataclass(frozen=True)
class SavedPart:
    """A component: its registered name, and what it is built with.

    The component is called as `target(*arguments, **options)`; an adapter's arguments are its two
    widths. `dist` is the distribution that brought it. `tensors` maps each tensor of a component
    that is not a module (a scorer) to its dtype and shape; a module knows its own.
    """

    name: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    dist: str = ""
    tensors: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """`config.json`.

    `kind` is the registered name of the artefact's class, and `dist` the distribution that brought
    it. `parts` contains each component by its name in the model: the kind of component, and after a
    dot what it belongs to (`adapter.image`, `scorer`). `fusemix` is the version that wrote the
    file. `seen` is how many keys of training items there are, by modality: 32 bits of each item's
    content key. `rotation` is the width of the matrix that orders the dimensions of a shared space,
    0 if there is none (the key is then left out). The fields from `recipe` on only inform.
    """

    format: int
    kind: str
    fusemix: str
    encoders: Mapping[str, EncoderInfo]
    parts: Mapping[str, SavedPart]
    weights_sha256: str
    dist: str = ""
    seen: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    rotation: int = 0
    recipe: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    objective: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    data: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    metrics: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


RECORD = ("recipe", "objective", "data", "metrics")
"""The fields of `SavedConfig` that only inform."""


def kind_of_part(name: str) -> str:
    """`adapter` of `adapter.image`."""
    return name.partition(".")[0]


def check_modality(name: str) -> None:
    """Raise `ConfigError` for a modality that can't be part of a tensor's name."""
    if not _MODALITY.fullmatch(name):
        raise ConfigError(
            f"{name!r} can't be a modality of a saved model.",
            "Use only letters, digits, '_' and '-'; of several of a kind: image:front.",
        )


def check_part_name(name: str) -> None:
    """Raise `ConfigError` unless the name begins with a kind of component."""
    if not _PART.fullmatch(name) or kind_of_part(name) not in KINDS:
        raise ConfigError(
            f"{name!r} can't be a part of a saved model.",
            "A part is named by its kind of component, and after a dot by its modality or owner: "
            "'scorer', 'adapter.image'.",
        )


def describe(tensor: Tensor) -> str:
    """A tensor's dtype and shape, such as `float32 [512, 384]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _without_folders(name: str) -> str:
    base, at, path = name.partition("@")
    if ".py:" in base:
        base = base.replace("\\", "/").rpartition("/")[2]
    return base + at + Path(path).name


def _distribution(spec: EncoderSpec, registry: Registry) -> str:
    """The distribution that registered a spec or its family; empty for user code."""
    name = spec.name.partition("@")[0]
    prefix = name.partition(":")[0]
    rows = [
        (dist, known)
        for dist, known in registry.all_encoders()
        if (known.prefix == prefix if isinstance(known, FamilySpec) else known.name == name)
    ]
    dists = [dist for dist, known in rows if known is spec] + [dist for dist, _ in rows]
    return "" if not dists or dists[0] == USER else dists[0]


def as_json(value: Any, at: str) -> Any:
    """`value`, or a dataclass, as JSON has it; a number that isn't finite becomes null.

    Raises `ConfigError`, naming `at`, for anything else.
    """
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): as_json(item, f"{at}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, f"{at}[{i}]") for i, item in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a numpy or torch scalar
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ConfigError(f"{at} is a {type(value).__name__}, which config.json can't hold.")
