"""Checkpoints: `step-N/state.safetensors` and `state.json`, complete or absent."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fusemix_core.config import FitPrecision
from fusemix_core.digests import digest_modules, file_sha256
from fusemix_core.disk import Advice, explained, flush, give_usual_mode
from fusemix_core.engine.precision import precision_of
from fusemix_core.engine.randomness import global_states, set_global_states
from fusemix_core.engine.state import TrainState
from fusemix_core.errors import ArtefactError
from fusemix_core.interfaces import FitContext, PairedLatents

FORMAT = 5
KEEP = 2
TENSORS, VALUES = "state.safetensors", "state.json"
COUNTERS = (
    "step",
    "epoch",
    "index",
    "evaluated",
    "enough",
    "best_score",
    "best_step",
    "risen_to",
    "waited",
    "loss_sum",
    "loss_count",
    "blocks",
    "history",
)
"""The fields of `TrainState` that state.json contains; the rest are tensors."""
_KEPT = "then resume the run: the checkpoint before this one is kept."
ADVICE = Advice(
    f"Free some space, {_KEPT}",
    f"Make the folder writable, {_KEPT}",
    f"Check the disk, {_KEPT}",
)
"""Where a checkpoint can't be written."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk. `values` is its state.json: counters and `history`, the metrics of
    every evaluation before it."""

    folder: Path
    values: dict[str, Any]

    @property
    def step(self) -> int:
        return self.values["step"]


def run_digest(
    settings: Mapping[str, Any],
    train: PairedLatents,
    validation: PairedLatents,
    context: FitContext,
) -> str:
    """The conditions that a checkpoint must fit: the settings of the fit, such as a recipe's
    values, the seed, the data's sizes, links, facts and unpaired items, which latents they are,
    and what is fixed. Of the precision it is what that comes to on the device of the context."""
    values = {name: v for name, v in settings.items() if name not in ("summary", "paper")}
    if values.get("training"):
        values["training"] = _as_trained(values["training"], context.device)
    links = [hashlib.sha256(d.links.numpy().tobytes()).hexdigest() for d in (train, validation)]
    facts = {name: fact.digest() for name, fact in train.facts.items()}
    sizes = {m: [len(t), t.dim] for m, t in train.tables.items()}
    links += [hashlib.sha256(ids.numpy().tobytes()).hexdigest() for ids in train.unpaired.values()]
    given = {m: digest_modules([a]) for m, a in context.fixed.items()}
    parts = [values, context.seed, sizes, links, facts, context.latents, given]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _as_trained(training: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The settings of training with the precision that is meant, or without if that is float32:
    so they were written before there was a choice. Whether adapters are compiled does not count."""
    values = {name: v for name, v in training.items() if name not in ("precision", "compile")}
    precision = precision_of(training.get("precision", "float32"), device).name
    return values if precision == "float32" else {**values, "precision": precision}


def checkpoint_folders(checkpoints: Path) -> list[Path]:
    """The `step-N` folders, oldest first."""
    found = [p for p in checkpoints.glob("step-*") if re.fullmatch(r"step-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name[5:]))


def latest(checkpoints: Path) -> Checkpoint | None:
    """The newest checkpoint, None if there is none. Raises `ArtefactError` if it is damaged."""
    folders = checkpoint_folders(checkpoints)
    if not folders:
        return None
    try:
        values = json.loads((folders[-1] / VALUES).read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ArtefactError(
                f"{folders[-1]} has the format {values['format']}; this version reads {FORMAT}.",
                "Resume it with the version of fusemix that wrote it, or start a new run.",
            )
        return Checkpoint(folders[-1], values)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(folders[-1], error) from error


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint says of a moment in training, on the CPU.

    values: the counters. tensors: by their names in the file.
    """

    values: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def step(self) -> int:
        return self.values["step"]


def snapshot(state: TrainState, device: torch.device) -> Snapshot:
    """The state as it is now. On the CPU its tensors are training's own: write them before the
    next step. From a device they are copied, on CUDA to pinned memory."""
    tensors = {n: x.detach().to("cpu", non_blocking=True) for n, x in _tensors(state, device)}
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    values = {c: getattr(state, c) for c in COUNTERS}
    values["history"] = list(values["history"])
    values["precision"] = state.fit.precision.name
    return Snapshot(values, {n: x.contiguous() for n, x in tensors.items()})


def resumed_precision(name: FitPrecision, checkpoints: Path | None) -> FitPrecision:
    """The precision to resume in if it is `auto`: that of the newest checkpoint, if there is
    one. Those from before there was a choice are in float32."""
    found = latest(checkpoints) if name == "auto" and checkpoints is not None else None
    return name if found is None else found.values.get("precision", "float32")


def save(taken: Snapshot, checkpoints: Path, digest: str) -> Path:
    """Write `step-N`, drop all but the newest two, and return its folder.

    It is written under another name, flushed to disk and renamed: a `step-N` that exists is whole.
    Raises `ArtefactError` if it can't be written; those before it are kept.
    """
    with explained(f"The checkpoint of step {taken.step} in {checkpoints}", ADVICE):
        checkpoints.mkdir(parents=True, exist_ok=True)
        for stale in checkpoints.glob(".step-*.tmp"):
            shutil.rmtree(stale)
        folder = checkpoints / f"step-{taken.step}"
        temporary = checkpoints / f".step-{taken.step}.tmp"
        temporary.mkdir()
        save_file(taken.tensors, temporary / TENSORS)
        give_usual_mode(temporary / TENSORS)
        values = {"format": FORMAT, "digest": digest, **taken.values}
        values["sha256"] = _checksum(values, temporary / TENSORS)
        (temporary / VALUES).write_text(json.dumps(values, indent=1), encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        flush(checkpoints)
        for old in checkpoint_folders(checkpoints)[:-KEEP]:
            shutil.rmtree(old)
    return folder


def load(checkpoint: Checkpoint, state: TrainState, digest: str, device: torch.device) -> None:
    """Put `state` (new, of the same run) and the global generators where the checkpoint was.

    Raises `ArtefactError` if it is of another run, or damaged.
    """
    if checkpoint.values.get("digest") != digest:
        raise ArtefactError(
            f"{checkpoint.folder} was saved by a run with another recipe, seed, dataset, "
            "encoder or precision: one of these has changed since.",
            "Resume with the settings of that run, or start a new one in another folder.",
        )
    try:
        if _checksum(checkpoint.values, checkpoint.folder / TENSORS) != checkpoint.values["sha256"]:
            raise ValueError("it does not match its checksum")
        tensors = load_file(checkpoint.folder / TENSORS)
        for name, module in _modules(state).items():
            module.load_state_dict(_under(tensors, name))
        _load_optimiser(state.optimiser, _under(tensors, "optimiser"))
        state.mixing.set_state(tensors["generator/mixup"])
        states = {n: tensors[f"generator/{n}"] for n in global_states(device)}
        set_global_states(states, device)
        for counter in COUNTERS:
            setattr(state, counter, checkpoint.values[counter])
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise _damaged(checkpoint.folder, error) from error
    if any(name.startswith("best/") for name in tensors):
        state.best = {m: _under(tensors, f"best/{m}") for m in state.fit.modules}


def _checksum(values: Mapping[str, Any], tensors: Path) -> str:
    """Of state.json but for the checksum itself, and of the tensors' file."""
    text = json.dumps({k: v for k, v in values.items() if k != "sha256"}, sort_keys=True)
    return hashlib.sha256(f"{text}{file_sha256(tensors)}".encode()).hexdigest()


def _damaged(folder: Path, error: Exception) -> ArtefactError:
    return ArtefactError(
        f"The checkpoint {folder} can't be read: {type(error).__name__}: {error}",
        "Delete that folder to resume from the one before it.",
    )


def _modules(state: TrainState) -> dict[str, nn.Module]:
    """Prefix of its tensors' names → module."""
    modules = {f"modules/{name}": module for name, module in state.fit.modules.items()}
    if state.averaged is not None:
        modules |= {f"averaged/{name}": module for name, module in state.averaged.items()}
    return modules | {"objective": state.fit.objective}


def _tensors(state: TrainState, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in _modules(state).items():
        for name, value in module.state_dict().items():
            yield f"{prefix}/{name}", value
    for modality, weights in (state.best or {}).items():
        for name, value in weights.items():
            yield f"best/{modality}/{name}", value
    for i, values in state.optimiser.state_dict()["state"].items():
        for name, value in values.items():
            yield f"optimiser/{i}/{name}", value
    yield "generator/mixup", state.mixing.get_state()
    for name, value in global_states(device).items():
        yield f"generator/{name}", value


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix/`, by the rest of their name."""
    return {n[len(prefix) + 1 :]: t for n, t in tensors.items() if n.startswith(f"{prefix}/")}
