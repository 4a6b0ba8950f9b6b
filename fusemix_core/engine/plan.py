"""From the size of the data to batches and steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fusemix_core.config import Training
from fusemix_core.engine.randomness import stream
from fusemix_core.engine.schedule import complete_warmup
from fusemix_core.errors import ConfigError, DataError


def choose_batch_size(pairs: int) -> int:
    """The pairs a step should see, for this many pairs an epoch (after mixing).

    The power of two at or below an eighth of them, from 32 to 4096: at least eight steps an epoch
    if the data allow it, and no batch that a small machine can't hold.
    """
    eighth = max(pairs // 8, 1)
    return min(max(1 << (eighth.bit_length() - 1), 32), 4096)


@dataclass(frozen=True)
class Plan:
    """The steps of a fit. `training` has its batch size chosen and its warm-up limited."""

    training: Training
    rows_per_step: int
    steps_per_epoch: int

    @property
    def batch_size(self) -> int:
        """The pairs of a step."""
        assert self.training.batch_size is not None  # `plan_steps` has chosen it
        return self.training.batch_size

    @property
    def total_steps(self) -> int:
        return self.training.epochs * self.steps_per_epoch


def plan_steps(rows: int, rows_per_pair: int, training: Training) -> Plan:
    """How `rows` rows of links make an epoch, where `rows_per_pair` of them make one pair.

    The last incomplete batch is dropped. A batch larger than the data shrinks to the largest that
    they fill, so that an epoch has one step at least. Raises `DataError` where not even two pairs
    can be made (a contrastive loss on one has nothing to contrast), `ConfigError` for impossible
    numbers.
    """
    _check(training)
    pairs = rows // rows_per_pair
    if pairs < 2:
        raise DataError(
            f"The training split has {rows} row(s); this recipe needs {2 * rows_per_pair} or more.",
            "Add pairs, or lower --validation-fraction and --test-fraction.",
        )
    batch = min(training.batch_size or choose_batch_size(pairs), pairs)
    steps = pairs // batch
    epochs = training.epochs
    if training.max_steps is not None:
        epochs = min(epochs, max(training.max_steps // steps, 1))
    training = complete_warmup(replace(training, batch_size=batch, epochs=epochs), steps)
    return Plan(training, batch * rows_per_pair, steps)


def _check(training: Training) -> None:
    if training.epochs < 1 or training.evaluate_every < 1:
        raise ConfigError(
            f"training.epochs is {training.epochs} and training.evaluate_every is "
            f"{training.evaluate_every}.",
            "Both are 1 or more.",
        )
    for name in ("max_steps", "evaluate_steps"):
        steps = getattr(training, name)
        if steps is not None and steps < 1:
            raise ConfigError(f"training.{name} is {steps}.", "It is 1 or more.")
    if training.batch_size is not None and training.batch_size < 2:
        raise ConfigError(
            f"training.batch_size is {training.batch_size}.",
            "A contrastive step needs 2 pairs or more; leave it unset to have it chosen.",
        )
    if training.unpaired < 0:
        raise ConfigError(f"training.unpaired is {training.unpaired}.", "It is 0 (none) or more.")
    if not 0 <= training.ema < 1:
        raise ConfigError(f"training.ema is {training.ema}.", "It is from 0 (off) to below 1.")


def spacing(step: int, first: int) -> int:
    """How many steps lie between evaluations about `step`, if there are `first` at first: twice
    as many with each doubling from 8 · `first` on. So a doubling has 4 to 8 evaluations."""
    doublings = (step // first).bit_length() - 1
    return first << max(doublings - 2, 0)


def epoch_order(rows: int, seed: int, epoch: int, items: Tensor | None = None) -> Tensor:
    """The rows of an epoch in the order they are used: a permutation, int64 `[rows]`.

    It depends only on the seed and the epoch, so that a resumed epoch needs nothing more. With
    items, `[rows]`, the rows of one item follow each other.
    """
    order = torch.randperm(rows, generator=stream(seed, f"order {epoch}"))
    return order if items is None else together(order, items)


def together(order: Tensor, items: Tensor) -> Tensor:
    """The same rows, those of one item after its first; a row without an item (-1) on its own."""
    item = items[order]
    alone = item.max() + 1 + torch.arange(len(item))
    item = torch.where(item < 0, alone, item)
    first = torch.full((int(item.max()) + 1,), len(item))
    first.scatter_reduce_(0, item, torch.arange(len(item)), "amin")
    return order[first[item].argsort(stable=True)]
