"""The configuration of a run: nested frozen dataclasses, TOML in and out. Standard library only."""

from __future__ import annotations

import dataclasses
import os
import shlex
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fusemix_core.errors import ConfigError, UnknownNameError, short

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
ComputeDtype = Literal["float32", "float16", "bfloat16"]
"""The precision of an encoder."""
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
"""The same as asked for. `auto`: float32, or on a CUDA device a half type whose latents agree with
float32's."""
StoreDtype = Literal["float16", "float32"]
"""The type that latents are stored in."""
FitPrecision = Literal["auto", "float32", "tf32", "half"]
"""What a fit computes in; see `Training`."""
Missing = Literal["bad", "ok"]
"""Whether a row without an entry of some modality counts as bad."""
Backend = Literal["auto", "eager", "openvino"]
"""The runtime of an encoder on the CPU."""

PARTS = ("aligner", "start", "adapter", "mixup", "objective", "optimiser", "scorer", "selector")
"""The settings of a recipe that name a component."""
_MAX_TOML = 4 << 20


@dataclass(frozen=True)
class Part:
    """A component by its registered name, and its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """How the engine trains. `None` means: chosen from the size of the data.

    `max_steps` ends training at the last whole epoch within it (one at least).
    `batch_size` counts the pairs that the objective sees, so after mixing. `schedule`
    `epoch-cosine` is the paper's (warm-up by step, cosine by epoch; `-cut` ends the warm-up with
    the first epoch, as the original implementation does);
    `cosine` warms up and decays by step; `constant` stays. Validation scores the weights each
    `evaluate_every` epochs or, if it is set, each `evaluate_steps` steps, and from eight times as
    many on more rarely (4 to 8 times in each doubling). `patience` counts
    evaluations without a better score, beyond its noise if the fit reports that; 0 never stops
    early. `weight_decay` is on `decay`: parameters of two dimensions or more, or all of them, the
    objective's temperature too. `together` names a modality: the rows of one of its items, such as
    the captions of an image, are in one batch.
    `unpaired` items of each modality that no row links go with each batch, to an objective that
    takes them; it is these that rows with one item give (`DataConfig.unpaired`).
    `precision` is what a step computes in: `float32`; `tf32`, products that round what they
    multiply to ten bits; `half`, adapters in bfloat16 with float32 weights too. `auto` is
    `half` on a GPU of compute capability 8 or more and `float32` anywhere else. `compile` says
    whether torch compiles adapters for the steps; `auto` is `on` on a GPU if there are many steps.
    """

    epochs: int = 100
    max_steps: int | None = None
    batch_size: int | None = None
    lr: float = 1e-3
    min_lr: float = 1e-6
    warmup_lr: float = 1e-6
    warmup_steps: int = 0
    schedule: Literal["epoch-cosine", "epoch-cosine-cut", "cosine", "constant"] = "cosine"
    weight_decay: float = 0.1
    decay: Literal["matrices", "all"] = "matrices"
    together: str = ""
    unpaired: int = 0
    clip_norm: float | None = None
    ema: float = 0.0
    evaluate_every: int = 1
    evaluate_steps: int | None = None
    patience: int = 0
    precision: FitPrecision = "auto"
    compile: Literal["auto", "off", "on"] = "auto"


@dataclass(frozen=True)
class Recipe:
    """A complete method. `start` names a closed-form aligner whose maps the adapters start from.
    `adapters` has the adapters of those modalities that have another than `adapter`.

    `dim` is the width of the shared space (None: the aligner chooses from the latents). `optimiser`
    None is `adamw`. `scorer` None is whichever registered scorer does best on the validation split.
    `views` are taken, modality → view, if the encoder has them and the user names none.
    `pairs` says on how many of the training pairs to fit (None: all), and `selector` which (None is
    `uniform`). `evaluators` measure a fit beside those of core.
    """

    name: str
    aligner: Part
    summary: str = ""
    paper: str = ""
    dim: int | None = None
    start: Part | None = None
    adapter: Part | None = None
    adapters: Mapping[str, Part] | None = None
    mixup: Part | None = None
    objective: Part | None = None
    optimiser: Part | None = None
    training: Training | None = None
    scorer: Part | None = None
    views: Mapping[str, str] | None = None
    pairs: int | None = None
    selector: Part | None = None
    evaluators: tuple[Part, ...] | None = None

    def adapter_of(self, modality: str) -> Part | None:
        """The adapter of a modality."""
        return (self.adapters or {}).get(modality, self.adapter)


@dataclass(frozen=True)
class DataConfig:
    """Where the pairs are and how they are split.

    `columns` maps a modality to one or more columns, comma-separated. A `table` without any
    takes all columns that nothing else uses, except those that `drop` has for it. With
    `validation` or `test` the split is by file; with `split_column` by that column; otherwise
    by seeded fraction, keeping all rows that share an item, or a value of `group_by`, on one
    side. `facts` maps a name to a further column of the rows, `COLUMN` or `COLUMN:KIND`
    (`number`, `class`, `text`, `time`, `box`, `xywh` or `labels`). `trust_column` says how far
    each row is to be trusted (None: the column `trust` if there is one; `none`: no column).
    `reader` names the reader of all sources (None: the first that matches). `encoding` and
    `delimiter` are those of text files (None: UTF-8, and whatever fits). Cells with one of
    `missing_values` are empty. With `missing` = `ok` a row that lacks an entry isn't bad: it is
    left out and counted apart. `prefix` and `suffix` make paths of ids, modality (or `*` for
    all) → what goes before and after. With `unpaired` a row with one item is not a fault: the
    item is kept for training without pairs (a recipe with `training.unpaired` sets it). `base`
    is the folder that relative paths are below (None: the working folder); a run's config.toml
    has it.
    """

    source: tuple[str, ...] = ()
    validation: str | None = None
    test: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    drop: Mapping[str, str] = field(default_factory=dict)
    split_column: str | None = None
    group_by: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    trust_column: str | None = None
    reader: Part | None = None
    encoding: str | None = None
    delimiter: str | None = None
    missing_values: tuple[str, ...] | None = None
    missing: Missing = "bad"
    prefix: Mapping[str, str] = field(default_factory=dict)
    suffix: Mapping[str, str] = field(default_factory=dict)
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    max_bad: float = 0.01
    allow_outside: bool = False
    unpaired: bool = False
    base: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """All that is read: the sources, and the files of the splits."""
        return (*self.source, *(one for one in (self.validation, self.test) if one))

    def located(self) -> DataConfig:
        """The same without `base`: its relative paths begin with it, unless they are only found
        below the working folder, or that is the base."""
        base = self.base
        if base is None:
            return self
        return replace(
            self,
            source=tuple(_located(base, one) for one in self.source),
            validation=self.validation and _located(base, self.validation),
            test=self.test and _located(base, self.test),
            base=None,
        )


def _located(base: str, path: str) -> str:
    below = os.path.join(base, path)
    if os.path.realpath(base) == os.path.realpath(os.curdir):
        return path
    return path if os.path.exists(path) and not os.path.exists(below) else below


@dataclass(frozen=True)
class RunConfig:
    """One `fusemix align`. `encoders` maps each modality of the data to an encoder's name, `views`
    to the view of it (without an entry: the encoder's first). `fixed` modalities keep their latents
    as embeddings, and the others are fitted to them. `extends` is a fused model, a folder or a hub
    id, that the modalities of `encoders` join; one that the model has already is the encoder to
    take in place of the saved name. `evaluators` measure the run beside those of core and of the
    recipe. `corrections` are fitted for generators beside the usual ones, where a modality is
    fixed. `baselines` are what it is compared with on the rows that it is measured on: names of
    recipes that are fitted to the same training rows, and folders or hub ids of finished models.
    `plugins` are the Python files that were loaded by `--plugin`. A `private` run writes no media
    and no vectors of single items (docs/how-to/private.md). `store` is the address of
    the object store that latents are kept in."""

    encoders: Mapping[str, str]
    data: DataConfig
    recipe: Recipe
    views: Mapping[str, str] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    extends: str | None = None
    evaluators: tuple[Part, ...] = ()
    corrections: tuple[Part, ...] = ()
    baselines: tuple[str, ...] = ("cca",)
    plugins: tuple[str, ...] = ()
    private: bool = False
    seed: int = 0
    device: str = "auto"
    dtype: Dtype = "auto"
    store_dtype: StoreDtype = "float16"
    encode_batch: int | None = None
    backend: Backend = "auto"
    decode_processes: int | None = None
    store: str | None = None


@dataclass(frozen=True)
class FuseConfig:
    """One `fusemix fuse`. `encoders` maps each modality to an encoder's name. `targets` are the
    facts of `data` that are predicted: `target`; `time` and `event`; or several labels by their
    names. `fuser` `auto` is whatever does best on validation. With `folds` the rows are predicted
    by cross-validation, and the model is fitted to all of them. `extends` is a predictor, a folder
    or a hub id: it gets one more modality. The other settings are as in `RunConfig`."""

    encoders: Mapping[str, str]
    data: DataConfig
    targets: tuple[str, ...] = ("target",)
    task: Part = Part("auto")
    fuser: Part = Part("auto")
    folds: int = 0
    extends: str | None = None
    views: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    private: bool = False
    seed: int = 0
    device: str = "auto"
    dtype: Dtype = "auto"
    store_dtype: StoreDtype = "float16"
    encode_batch: int | None = None
    backend: Backend = "auto"
    decode_processes: int | None = None
    store: str | None = None


def to_dict(config: Any) -> dict[str, Any]:
    """A config as nested plain dicts, without the fields that are None."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, Mapping):
            value = {k: to_dict(v) if isinstance(v, Part) else v for k, v in value.items()}
        elif isinstance(value, tuple):
            value = [to_dict(v) if isinstance(v, Part) else v for v in value]
        if value is not None:
            out[f.name] = value
    return out


def from_dict(kind: type[T], values: Mapping[str, Any], at: str = "") -> T:
    """The config dataclass `kind` from nested dicts; a wrong key or type is a `ConfigError`."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{at or 'The config'} must be a table, not {short(repr(values))}.")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise UnknownNameError.of("setting", f"{at}{key}", [at + k for k in known])
    for name, f in known.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ConfigError(f"{at}{name} is missing.")
    return kind(**{k: _convert(hints[k], v, f"{at}{k}") for k, v in values.items()})


def _convert(hint: Any, value: Any, at: str) -> Any:
    """`value` as `hint` asks; raises `ConfigError` if it does not fit."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, at)
    if dataclasses.is_dataclass(hint):
        if hint is Part and isinstance(value, str):
            return Part(value)
        return from_dict(hint, value, f"{at}.")
    if origin is Literal:
        if value not in args:
            known = ", ".join(map(str, args))
            raise ConfigError(f"{at} is {short(repr(value))}; it must be one of {known}.")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(args[0], v, at) for v in value)
    if isinstance(value, Mapping) and Mapping in (origin, hint):
        if Part in args:
            some = {k: v for k, v in value.items() if v is not None}
            return {k: _convert(Part, v, f"{at}.{k}") for k, v in some.items()}
        if args == (str, str):
            return {k: _convert(str, v, f"{at}.{k}") for k, v in value.items()}
        return dict(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (bool, str, int) and type(value) is hint:
        return value
    if hint is Any:
        return value
    kind = getattr(hint, "__name__", hint)
    raise ConfigError(f"{at} is {short(repr(value))}, which is not of type {kind}.")


def parse_assignment(text: str) -> tuple[list[str], Any]:
    """`a.b=value` as (["a", "b"], value); the value is read as TOML, or kept as a string."""
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"'{text}' is not KEY=VALUE.", "Example: --set training.epochs=20")
    raw = raw.strip()
    try:
        value = tomllib.loads(f"v = {raw}")["v"]
    except (ValueError, RecursionError):
        value = {"none": None, "": ""}.get(raw.lower(), raw)
    return key.strip().split("."), value


def parse_part(text: str) -> Part:
    """`NAME KEY=VALUE …` as a part: `hubs k=5`. A name with spaces is in quotes."""
    try:
        name, *options = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"'{short(text)}' is not NAME KEY=VALUE …: {error}.") from error
    values = {}
    for option in options:
        keys, values[".".join(keys)] = parse_assignment(option)
    return Part(name, values)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The table in a TOML file; a fault is a `ConfigError` that names the file."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_TOML + 1)
        if len(data) > _MAX_TOML:
            raise ValueError(f"it is larger than {_MAX_TOML >> 20} MiB")
        return tomllib.loads(data.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} can't be read as TOML: {error}") from error
