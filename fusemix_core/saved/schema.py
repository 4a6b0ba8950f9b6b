"""What `config.json` of a saved model holds.

Components stand in it by their registered names; nothing in it is a class path, a file to run or an
address to fetch.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from fusemix_core.errors import ConfigError
from fusemix_core.registry import USER, Registry, registry
from fusemix_core.specs import EncoderSpec, FamilySpec

FORMAT = 1
"""Raised when an older fusemix could not read, or would misread, what this one writes."""

_MODALITY = re.compile(r"\w[\w-]*")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class EncoderInfo:
    """What a fused model knows of the encoder that its latents of one modality came from.

    `dim` is the width of those latents as the adapter gets them, one row an item (`[n, L, d]` as
    `[n, L * d]`), or of one token where the adapter takes tokens of any number;
    `fingerprint` the encoder's when they were taken, `dist` the distribution that registered
    `name` (empty: user code).
    """

    name: str
    modality: str
    dim: int
    fingerprint: str
    view: str
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    takes: str = "text"
    dist: str = ""
    licence: str = ""
    weights: str = ""
    revision: str = ""

    @classmethod
    def of(
        cls,
        spec: EncoderSpec,
        *,
        modality: str,
        dim: int,
        fingerprint: str,
        view: str,
        dtype: str = "float32",
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
    """A component by its registered name, its options, and the distribution that brought it."""

    name: str
    options: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    dist: str = ""


@dataclass(frozen=True)
class SavedModality:
    """One modality: its encoder, and its adapter."""

    encoder: EncoderInfo
    adapter: SavedPart


@dataclass(frozen=True)
class SavedScorer:
    """The scorer; `tensors` maps the name of each tensor it holds to its dtype and shape."""

    name: str
    options: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    dist: str = ""
    tensors: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


@dataclass(frozen=True, kw_only=True)
class SavedConfig:
    """`config.json`. `fusemix` is the version that wrote it; what has a default only informs."""

    format: int
    fusemix: str
    dim: int
    modalities: Mapping[str, SavedModality]
    scorer: SavedScorer
    weights_sha256: str
    recipe: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    objective: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    data: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    metrics: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


def version() -> str:
    """The installed version of fusemix, or `unknown` when it runs from its source tree."""
    try:
        return metadata.version("fusemix")
    except metadata.PackageNotFoundError:
        return "unknown"


def check_modality(name: str) -> None:
    """Raise `ConfigError` for a modality that can't be part of a tensor's name."""
    if not _MODALITY.fullmatch(name):
        raise ConfigError(
            f"{name!r} can't be a modality of a fused model.",
            "Use letters, digits, '_' and '-' only.",
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


def plain(value: Any, at: str) -> Any:
    """`value`, or a dataclass, as JSON can hold it; a number that isn't finite becomes null.

    Raises `ConfigError`, naming `at`, for anything else.
    """
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{at}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{at}[{i}]") for i, item in enumerate(value)]
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a numpy or torch scalar
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ConfigError(f"{at} is a {type(value).__name__}, which config.json can't hold.")
