"""The training loop: steps, evaluations, checkpoints, and the weights that are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, nullcontext
from typing import Generic

import torch
from torch import Tensor, nn

from fusemix_core.allocator import keep_freed_memory
from fusemix_core.config import Part
from fusemix_core.engine import checkpoint, distributed
from fusemix_core.engine.compiling import Compiling, pays
from fusemix_core.engine.feed import feed, resident
from fusemix_core.engine.fit import ENOUGH, NOISE, Fit, M
from fusemix_core.engine.interrupt import deferred_interrupt, no_interrupt
from fusemix_core.engine.plan import Plan, spacing
from fusemix_core.engine.precision import precision_of
from fusemix_core.engine.saver import Saver
from fusemix_core.engine.schedule import learning_rate, progress
from fusemix_core.engine.state import ADAMW, TrainState, diverged, finite, train_step
from fusemix_core.errors import DivergedError, RunExistsError
from fusemix_core.interfaces import Batch, FitContext, Mixup, PairedLatents
from fusemix_core.numerics import exact


class Trainer(Generic[M]):
    """Trains a fit on batches as `plan` cuts them. `run` may be called once.

    Where `torch.distributed` is initialised every process runs one, all alike; only the first one
    evaluates, saves, and tells its callbacks.

    Args:
        fit: what is trained.
        train: the pairs that batches are drawn from.
        mixup: of each batch.
        plan: batches and steps; see `plan_steps`.
        context: where it runs, where it saves, whom it tells.
        digest: ties checkpoints to the run; see `checkpoint.run_digest`.
        score_start: evaluate the weights given before the first step, and keep them if training
            finds none better.
        optimiser: by its registered name.

    Raises:
        RunExistsError: if the checkpoint folder contains another run's and `context.resume` is not
            set.
    """

    def __init__(
        self,
        fit: Fit[M],
        train: PairedLatents,
        mixup: Mixup,
        plan: Plan,
        context: FitContext,
        digest: str,
        *,
        score_start: bool = False,
        optimiser: Part = ADAMW,
    ) -> None:
        self.fit, self.train, self.mixup = fit, train, mixup
        self.plan, self.training = plan, plan.training
        self.context, self.digest = context, digest
        self.score_start = score_start
        fit.precision = precision_of(plan.training.precision, context.device)
        if context.device.type == "cpu":
            keep_freed_memory()
        trained = (*fit.modules.values(), fit.objective)
        for module in trained:
            module.to(context.device).train()
        for module in fit.fixed.values():
            module.to(context.device).eval().requires_grad_(False)
        self.first = distributed.rank() == 0
        self.callbacks = context.callbacks if self.first else ()
        distributed.check_same([digest, _shapes(trained)], "data, recipe and parameters")
        distributed.take_from_first(trained)
        self.state = TrainState.new(fit, self.training, context.seed, optimiser)
        self.state.blocks = distributed.any_of_them(not resident(self.train))
        self.compiled: Compiling | None = None
        self.whole = True  # False while the state is between two steps
        checkpoints = context.checkpoints if self.first else None
        self.saver: Saver | None = None
        if checkpoints is not None:
            self.saver = Saver(checkpoints, digest, context.device)

    def run(self) -> dict[str, M]:
        """Train to the end and return the fit's modules with the kept weights, in eval mode on the
        CPU.

        `KeyboardInterrupt` (also from a callback) saves a checkpoint and goes on up.
        """
        self._resume()
        expected = self.fit.expected_steps(self.plan.total_steps)
        if pays(self.training.compile, self.context.device, expected):
            self.compiled = self._compiled()
        for callback in self.callbacks:
            callback.on_start(expected)
        try:
            interruptible = deferred_interrupt(self._stopping) if self.first else no_interrupt()
            with interruptible as check_interrupt, closing(self._feed()) as batches:
                self._loop(batches, check_interrupt)
                if self.saver:
                    self.saver.finish()
        except KeyboardInterrupt:
            if self.saver and self.whole and self._sound():
                self.saver.save(self.state)
                self.saver.finish()
            raise
        finally:
            if self.saver:
                self.saver.close()
            for callback in self.callbacks:
                callback.on_end()
        return self.kept()

    def _sound(self) -> bool:
        """Whether the state is worth saving: every loss and weight is finite."""
        try:
            self.state.settle()
        except DivergedError:
            return False
        return finite(self.fit.modules)

    def _compiled(self) -> Compiling:
        trained = {m: a for m, a in self.fit.adapters.items() if m in self.fit.modules}
        return Compiling(trained, self.train.dims, self.plan, self.fit.precision, self._tell)

    def _tell(self, text: str) -> None:
        for callback in self.callbacks:
            callback.on_stage(text)

    def _stopping(self) -> None:
        for callback in self.callbacks:
            callback.on_interrupt()

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
            mixup=self.mixup,
        )

    def _loop(self, batches: Iterator[Batch], check_interrupt: Callable[[], None]) -> None:
        while True:
            if self._evaluation_due():
                self._evaluate()
                if self.saver and (self._finished() or self.saver.due()):
                    self.saver.save(self.state)
            if self._finished():
                return
            check_interrupt()
            self._step(next(batches))

    def _step(self, batch: Batch) -> None:
        state, plan = self.state, self.plan
        place = (state.epoch, state.index, plan.steps_per_epoch)
        self.whole = False
        distributed.seed_step(self.context.seed, state.step)
        compiled = self.compiled.steps() if self.compiled else nullcontext()
        with self.fit.precision.step(), compiled:
            metrics = train_step(
                state,
                batch,
                self.mixup,
                learning_rate(self.training, *place),
                progress(self.training, *place),
                self.training.clip_norm,
                self.training.ema,
            )
        state.index += 1
        if state.index == plan.steps_per_epoch:
            state.epoch, state.index = state.epoch + 1, 0
        self.whole = True
        for callback in self.callbacks:
            callback.on_step(state.step, metrics)

    def _evaluation_due(self) -> bool:
        state, training = self.state, self.training
        if state.evaluated == state.step:
            return False
        if state.step == 0:
            return self.score_start
        if state.index == 0 and state.epoch == training.epochs:
            return True
        if training.evaluate_steps is not None:
            return state.step % spacing(state.step, training.evaluate_steps) == 0
        return state.index == 0 and state.epoch % training.evaluate_every == 0

    def _evaluate(self) -> None:
        """Score the weights on the validation split and keep them if they are the best so far."""
        state, self.whole = self.state, False
        state.settle()
        if not finite(self.fit.modules):
            lr = state.optimiser.param_groups[0]["lr"]
            raise diverged(state.place, "Weights became NaN or infinite before the evaluation", lr)
        metrics: dict[str, float] = {"epoch": state.epoch}
        if state.loss_count:
            metrics["loss"] = state.loss_sum / state.loss_count
        metrics |= distributed.from_first(self._validated)
        if "score" in metrics:
            metrics["best"] = self._best_of(metrics["score"], metrics.get(NOISE, 0.0))
        state.loss_sum, state.loss_count = 0.0, 0
        state.evaluated = state.step
        state.enough = bool(metrics.pop(ENOUGH, False))
        state.history.append({"step": state.step, **metrics})
        self.whole = True
        for callback in self.callbacks:
            callback.on_evaluation(state.step, metrics)

    @exact()
    @torch.no_grad()
    def _validated(self) -> dict[str, float]:
        """The fit's metrics, its modules in eval mode meanwhile."""
        kept = self.state.kept
        training = {name: module.training for name, module in kept.items()}
        for module in kept.values():
            module.eval()
        try:
            return dict(self.fit.validate(kept))
        finally:
            for name, module in kept.items():
                module.train(training[name])

    def _best_of(self, score: float, noise: float) -> float:
        """The best score with this one, whose weights are kept if it is."""
        state = self.state
        risen, best = state.risen_to, state.best_score
        # A score is NaN if validation has nothing to measure; any other is better.
        if risen is None or math.isnan(risen) or score > risen + noise:
            state.risen_to, state.waited = score, 0
        else:
            state.waited += 1
        if best is not None and not math.isnan(best) and not score > best:
            return best
        state.best_score, state.best_step = score, state.step
        state.best = {name: _weights(module) for name, module in state.kept.items()}
        return score

    def _finished(self) -> bool:
        state, patience = self.state, self.training.patience
        if state.epoch >= self.training.epochs or 0 < patience <= state.waited:
            return True
        return state.enough

    def kept(self) -> dict[str, M]:
        """The fit's modules with the best weights so far, or the last ones if there was no score,
        in eval mode on the CPU. Training can't go on afterwards."""
        kept = self.state.kept
        for name, module in kept.items():
            if self.state.best is not None:
                module.load_state_dict(self.state.best[name])
        distributed.take_from_first(kept.values())
        for module in kept.values():
            module.requires_grad_(True).eval().cpu()
        return kept

    def _resume(self) -> None:
        folder = self.context.checkpoints
        found = checkpoint.latest(folder) if folder is not None else None
        if found is None:
            return
        if not self.context.resume:
            raise RunExistsError(
                f"{folder} contains the checkpoint {found.folder.name} of an earlier run.",
                "Resume that run, or choose another folder.",
            )
        checkpoint.load(found, self.state, self.digest, self.context.device)
        distributed.wait_for_all()  # the first one may soon replace it


def _shapes(modules: Iterable[nn.Module]) -> list[list[int]]:
    return [list(value.shape) for m in modules for value in m.state_dict().values()]


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
