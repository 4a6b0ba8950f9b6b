"""The training loop: steps, evaluations, checkpoints, and the weights that are kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace

import torch
from torch import Tensor

from fusemix_core.adapters.rows import VALUES
from fusemix_core.allocator import keep_freed_memory
from fusemix_core.config import Part
from fusemix_core.engine import checkpoint, distributed
from fusemix_core.engine.feed import feed, resident
from fusemix_core.engine.interrupt import deferred_interrupt, no_interrupt
from fusemix_core.engine.plan import Plan
from fusemix_core.engine.schedule import learning_rate, progress
from fusemix_core.engine.state import ADAMW, TrainState, diverged, finite, train_step
from fusemix_core.engine.validation import Recalls, at_most, mean_recall, recalls
from fusemix_core.errors import DataError, RunExistsError
from fusemix_core.interfaces import (
    Adapter,
    Batch,
    FitContext,
    LatentTable,
    Mixup,
    Objective,
    PairedLatents,
    ResidentLatents,
)
from fusemix_core.paired import in_memory, joined

VALIDATION_ROWS = 10_000
"""Rows of the validation split that choose the weights; more would cost time and tell little."""

CHECKPOINT_SHARE = 0.1
"""The share of the time that checkpoints may take; beyond it an evaluation goes unsaved."""


class Trainer:
    """One fit by gradient, on batches as `plan` cuts them. `run` may be called once.

    `adapters` are those to train; modalities of the data without one have theirs in `fixed`.
    `digest` ties checkpoints to the run (`checkpoint.run_digest`). With `score_start` the weights
    given are evaluated before the first step, and kept if training finds none better. Where
    `torch.distributed` is initialised every process runs one, all alike; the first one alone
    evaluates, saves, and tells its callbacks.
    Raises `RunExistsError` if the checkpoint folder holds another run's and `context.resume` is not
    set.
    """

    def __init__(
        self,
        adapters: dict[str, Adapter],
        objective: Objective,
        mixup: Mixup,
        train: PairedLatents,
        validation: PairedLatents,
        plan: Plan,
        context: FitContext,
        digest: str,
        score_start: bool = False,
        optimiser: Part = ADAMW,
        fixed: Mapping[str, Adapter] | None = None,
    ) -> None:
        self.plan, self.training = plan, plan.training
        self.mixup, self.context, self.digest = mixup, context, digest
        self.train, self.validation = on_device(
            train, at_most(validation, VALIDATION_ROWS, context.seed), context.device
        )
        self.score_start = score_start
        if context.device.type == "cpu":
            keep_freed_memory()
        for module in (*adapters.values(), objective):
            module.to(context.device).train()
        for adapter in (fixed or {}).values():
            adapter.to(context.device).eval().requires_grad_(False)
        self.first = distributed.rank() == 0
        self.callbacks = context.callbacks if self.first else ()
        distributed.take_from_first((*adapters.values(), objective))
        self.state = TrainState.new(
            adapters, objective, self.training, context.seed, optimiser, fixed
        )
        self.state.blocks = not resident(self.train)
        self.whole = True  # False while the state is between two steps
        self.clock = SaveClock()

    def run(self) -> dict[str, Adapter]:
        """Train to the end and return the kept adapters of those trained, in eval mode on the CPU.

        `KeyboardInterrupt` (also from a callback) saves a checkpoint and goes on up.
        """
        self._resume()
        for callback in self.callbacks:
            callback.on_start(self.plan.total_steps)
        try:
            interruptible = deferred_interrupt() if self.first else no_interrupt()
            with interruptible as check_interrupt, closing(self._feed()) as batches:
                self._loop(batches, check_interrupt)
        except KeyboardInterrupt:
            if self.whole and finite(self.state.adapters):
                self._save()
            raise
        finally:
            for callback in self.callbacks:
                callback.on_end()
        return self._kept()

    def _feed(self) -> Generator[Batch]:
        state, context = self.state, self.context
        return feed(
            self.train,
            self.plan,
            context.seed,
            context.device,
            blocks=state.blocks,
            epoch=state.epoch,
            index=state.index,
        )

    def _loop(self, batches: Iterator[Batch], check_interrupt: Callable[[], None]) -> None:
        while True:
            if self._evaluation_due():
                self._evaluate()
                if self._finished() or self.clock.due():
                    self._save()
            if self._finished():
                return
            check_interrupt()
            self._step(next(batches))

    def _step(self, batch: Batch) -> None:
        state, plan = self.state, self.plan
        place = (state.epoch, state.index, plan.steps_per_epoch)
        self.whole = False
        distributed.seed_step(self.context.seed, state.step)
        metrics = train_step(
            state,
            batch,
            self.mixup,
            learning_rate(self.training, *place),
            progress(self.training, *place),
            self.training.clip_norm,
            self.training.ema,
        )
        metrics["epoch"] = state.epoch
        state.index += 1
        if state.index == plan.steps_per_epoch:
            state.epoch, state.index = state.epoch + 1, 0
        self.whole = True
        for callback in self.callbacks:
            callback.on_step(state.step, metrics)

    def _evaluation_due(self) -> bool:
        state = self.state
        if state.index or state.evaluated == state.epoch:
            return False
        if state.epoch == 0:
            return self.score_start
        every = self.training.evaluate_every
        return state.epoch % every == 0 or state.epoch == self.training.epochs

    def _evaluate(self) -> None:
        """Score the weights on the validation split and keep them if they are the best so far."""
        state, self.whole = self.state, False
        if not finite(state.adapters):
            lr = state.optimiser.param_groups[0]["lr"]
            raise diverged(state, "Weights became NaN or infinite before the evaluation", lr)
        found = self._recalls()
        metrics: dict[str, float] = {"epoch": state.epoch}
        if state.loss_count:
            metrics["loss"] = state.loss_sum / state.loss_count
        metrics |= {f"recall_at_1/{a}-{b}": shares[0] for (a, b), shares in found.items()}
        if found:
            metrics["recall_at_1"] = sum(s[0] for s in found.values()) / len(found)
            metrics["score"] = mean_recall(found)
            self._keep_if_better(metrics["score"])
            metrics["best"] = state.best_score
        state.loss_sum, state.loss_count = 0.0, 0
        state.evaluated = state.epoch
        state.history.append({"step": state.step, **metrics})
        self.whole = True
        for callback in self.callbacks:
            callback.on_evaluation(state.step, metrics)

    def _recalls(self) -> Recalls:
        """Those of the first process, in each of them."""

        def rows() -> list[tuple]:
            adapters, device = {**state.kept, **state.fixed}, self.context.device
            found = recalls(adapters, self.validation, device, fixed=state.fixed)
            return [(a, b, *shares) for (a, b), shares in found.items()]

        state = self.state
        return {(a, b): tuple(shares) for a, b, *shares in distributed.from_first(rows)}

    def _keep_if_better(self, score: float) -> None:
        state = self.state
        if state.best_score is not None and score <= state.best_score:
            state.waited += 1
            return
        state.best_score, state.best_step, state.waited = score, state.step, 0
        state.best = {m: _weights(adapter) for m, adapter in state.kept.items()}

    def _finished(self) -> bool:
        patience = self.training.patience
        return self.state.epoch >= self.training.epochs or 0 < patience <= self.state.waited

    def _kept(self) -> dict[str, Adapter]:
        """The best weights, or the last ones where no validation told."""
        kept = self.state.kept
        for modality, adapter in kept.items():
            if self.state.best is not None:
                adapter.load_state_dict(self.state.best[modality])
        distributed.take_from_first(kept.values())
        for adapter in kept.values():
            adapter.requires_grad_(True).eval().cpu()
        return kept

    def _save(self) -> None:
        if self.context.checkpoints is not None and self.first:
            with self.clock:
                checkpoint.save(
                    self.state, self.context.checkpoints, self.digest, self.context.device
                )

    def _resume(self) -> None:
        folder = self.context.checkpoints
        found = checkpoint.latest(folder) if folder is not None else None
        if found is None:
            return
        if not self.context.resume:
            raise RunExistsError(
                f"{folder} holds the checkpoint {found.folder.name} of an earlier run.",
                "Resume that run, or choose another folder.",
            )
        checkpoint.load(found, self.state, self.digest, self.context.device)
        distributed.wait_for_all()  # the first one may soon replace it


class SaveClock:
    """Tells when the next checkpoint is due, given how long the last one took to write."""

    def __init__(self) -> None:
        self.began = self.ended = -1.0

    def __enter__(self) -> None:
        self.began = time.monotonic()

    def __exit__(self, *error: object) -> None:
        self.ended = time.monotonic()

    def due(self) -> bool:
        took = self.ended - self.began
        return self.ended < 0 or (time.monotonic() - self.ended) * CHECKPOINT_SHARE >= took


def check_links(train: PairedLatents, fixed: Collection[str] = ()) -> None:
    """Raise `DataError` for a modality that no training pair has and that is not fixed: it could
    not be learnt."""
    if not len(train):
        raise DataError("The training split is empty.", "Check how the data are split.")
    for modality in train.modalities:
        if modality not in fixed and not len(train.linked(modality)):
            raise DataError(
                f"No training pair has an item of the modality '{modality}'.",
                "Leave the modality out, or check its column and how the data are split.",
            )


def on_device(
    train: PairedLatents, validation: PairedLatents, device: torch.device
) -> tuple[PairedLatents, PairedLatents]:
    """Both splits with their tables on the device, where they fit in half of its free memory.

    Otherwise, and on the CPU, the tables stay as they are and batches are gathered from them.
    """
    if device.type != "cuda":
        return train, validation
    tables = {id(t): t for d in (train, validation) for t in d.tables.values()}
    free, _ = torch.cuda.mem_get_info(device)
    if sum(_bytes_there(t) for t in tables.values()) > free // 2:
        return train, validation
    moved = {i: _moved(t, device) for i, t in tables.items()}
    return tuple(
        replace(d, tables={m: moved[id(t)] for m, t in d.tables.items()})
        for d in (train, validation)
    )


def _bytes_there(table: LatentTable) -> int:
    """What `_moved` takes on the device."""
    resident = isinstance(table, ResidentLatents)
    return table.latents.nbytes if resident else len(table) * table.dim * 4


def _moved(table: LatentTable, device: torch.device) -> ResidentLatents:
    """The table on the device; one on disk goes there in chunks, so that it need not fit here."""
    if isinstance(table, ResidentLatents):
        return table.to(device)
    chunks = torch.arange(len(table)).split(max(1, VALUES // table.dim))
    return joined([in_memory(table.rows(ids)).to(device) for ids in chunks])


def _weights(adapter: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in adapter.state_dict().items()}
