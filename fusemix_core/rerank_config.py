"""The configuration of `fusemix rerank`. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from fusemix_core.config import (
    Backend,
    DataConfig,
    Dtype,
    Part,
    StoreDtype,
    Training,
    from_dict,
    to_dict,
)
from fusemix_core.errors import ConfigError, UnknownNameError, short

AUTO = "auto"


@dataclass(frozen=True)
class RerankSettings:
    """How a re-ranker is trained.

    `negatives` are those that a pair is scored against. `batch`: all other pairs of the batch,
    mixed by FuseMix with λ ~ Beta(`mix`, `mix`), or not if `mix` is 0. `hard`: `count` items on
    either side, drawn from the `pool` items that the fused model ranks first and that do not belong
    to the pair; `random`: as many, drawn from all. `auto` is `batch` if the network scores a batch
    at once, as `interaction` does, else `random`. `top_k` is how many results are ranked anew.
    """

    negatives: Literal["auto", "batch", "hard", "random"] = "auto"
    mix: float = 1.0
    count: int = 4
    pool: int = 32
    top_k: int = 32
    training: Training = field(
        default_factory=lambda: Training(
            epochs=24,
            batch_size=64,
            lr=3e-3,
            weight_decay=0.1,
            evaluate_every=4,
            warmup_steps=20,
            clip_norm=1.0,
            patience=3,
            precision="float32",
            compile="off",
        )
    )

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("pool", self.count), ("top_k", 2), ("mix", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}.", f"It is {least} or more.")


def with_settings(
    table: Mapping[str, Any], values: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The whole table of a `RerankSettings`: what isn't in it is as usual.

    Args:
        table: Some of its fields, and some of those of `training`.
        values: Others by their keys, such as `training.epochs`.

    Raises:
        ConfigError, UnknownNameError: A setting is unknown, or its value can't be used.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"settings is {short(repr(table))}.", "It is a table: [settings].")
    found = {**to_dict(RerankSettings()), **table}
    if isinstance(found["training"], Mapping):
        found["training"] = {**to_dict(RerankSettings().training), **found["training"]}
    found = to_dict(from_dict(RerankSettings, found, "settings."))
    known = {f.name for f in fields(RerankSettings)}
    known |= {f"training.{f.name}" for f in fields(Training)}
    for key, value in values.items():
        if key not in known:
            note = 'Options of a network go into --network "NAME KEY=VALUE".'
            raise UnknownNameError.of("setting", key, known, note)
        path, _, last = key.rpartition(".")
        (found[path] if path else found)[last] = value
    return to_dict(from_dict(RerankSettings, found))


@dataclass(frozen=True)
class RerankConfig:
    """One `fusemix rerank`. `model` is the fused model whose results are ranked anew: a run, a
    folder or a hub id. `between` names two of its modalities (none: its first two). `encoders` are
    those that give the tokens, by modality, in place of the model's own; `views` the views of them
    (without an entry: one with tokens, of several layers if there is one). `network` `auto` is
    whichever re-ranker does best on validation, of those that score a batch at once; with options,
    of those that have them. `split_seed` splits the rows (None: `seed`); on the data of the model's
    own run it is that run's, so that what the model was fitted to stays out of the test. The other
    settings are as in `RunConfig`."""

    model: str
    data: DataConfig
    between: tuple[str, ...] = ()
    encoders: Mapping[str, str] = field(default_factory=dict)
    views: Mapping[str, str] = field(default_factory=dict)
    network: Part = Part(AUTO)
    settings: RerankSettings = field(default_factory=RerankSettings)
    plugins: tuple[str, ...] = ()
    private: bool = False
    seed: int = 0
    split_seed: int | None = None
    device: str = "auto"
    dtype: Dtype = "auto"
    store_dtype: StoreDtype = "float16"
    encode_batch: int | None = None
    backend: Backend = "auto"
    decode_processes: int | None = None
    store: str | None = None
