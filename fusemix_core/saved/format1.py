"""Models of format 1, which only knew fused models: read as strictly as format 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fusemix_core.config import from_dict
from fusemix_core.errors import ConfigError
from fusemix_core.saved.schema import RECORD, EncoderInfo, SavedConfig, SavedPart, check_modality

_KIND = "fused"
"""The common form of every model of format 1."""


@dataclass(frozen=True)
class _Adapter:
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    dist: str = ""


@dataclass(frozen=True)
class _Scorer(_Adapter):
    tensors: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Modality:
    encoder: EncoderInfo
    adapter: _Adapter


@dataclass(frozen=True, kw_only=True)
class _Config:
    """`config.json` of format 1."""

    format: int
    fusemix: str
    dim: int
    modalities: Mapping[str, Any]
    scorer: _Scorer
    weights_sha256: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


def read_format1(values: Mapping[str, Any]) -> SavedConfig:
    """The same model as format 2 describes it.

    Raises `ConfigError` for anything that format 1 does not allow.
    """
    config = from_dict(_Config, values)
    modalities = {}
    for name, value in config.modalities.items():
        check_modality(name)
        modalities[name] = from_dict(_Modality, value, f"modalities.{name}.")
    if config.dim < 1:
        raise ConfigError(f"dim is {config.dim}.")
    parts = {
        f"adapter.{name}": SavedPart(
            m.adapter.name, (m.encoder.dim, config.dim), _options(m), m.adapter.dist
        )
        for name, m in modalities.items()
    }
    scorer = config.scorer
    parts["scorer"] = SavedPart(scorer.name, (), scorer.options, scorer.dist, scorer.tensors)
    return SavedConfig(
        format=config.format,
        kind=_KIND,
        fusemix=config.fusemix,
        encoders={name: m.encoder for name, m in modalities.items()},
        parts=parts,
        weights_sha256=config.weights_sha256,
        dist="fusemix",
        **{name: getattr(config, name) for name in RECORD},
    )


def _options(modality: _Modality) -> Mapping[str, Any]:
    """The adapter's options, which must be said where what they meant has changed since.

    `attention-pool` without options had no query, nor had it one for latents of any other width
    than frames · dim.
    """
    adapter, options = modality.adapter, modality.adapter.options
    frames, dim = options.get("frames", 1), options.get("dim", 0)
    if adapter.name != "attention-pool" or not (type(frames) is type(dim) is int):
        return options
    plain = frames == 1 or frames * dim != modality.encoder.dim
    return {"frames": 1} if plain else options
