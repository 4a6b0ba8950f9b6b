"""The `hammer` objective: wrong pairs are negatives of others, and pull nothing together."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import (
    Adapter,
    FitContext,
    Followers,
    PairedLatents,
    Step,
)
from fusemix_core.objectives.calls import CountsCalls
from fusemix_core.objectives.infonce import TEMPERATURE_RANGE
from fusemix_core.objectives.pairs import unit_rows
from fusemix_core.paired import sent


class HammerObjective(CountsCalls):
    """HAMMER's manipulation-aware contrastive loss (arXiv 2304.02556), by trust t of each row.

    Rows are compared with the averaged adapters' embeddings of the batch, and of the batches before
    it in a queue of `queue` rows. With p the softmax of a row's cosines over the temperature, and q
    that of the averaged row's, the loss of row i across modalities is -(1 - α) tᵢ log pᵢ -
    α Σⱼ qⱼ log pⱼ, both ways; within each modality it is -log pᵢ, whatever tᵢ. It is the mean over
    the rows of these four; over the pairs of modalities, each on the rows that have both, with
    several. A row of trust 0 stays among all others' negatives.

    alpha: α, which in the first `warmup` calls goes up from 0. momentum: of the averaged adapters,
    which follow before each step. The temperature is clamped to [0.001, 0.5] before each use. The
    queue begins empty. Logits of all rows with batch and queue are held, `[n, n + queue]`. Raises
    `ConfigError` for options out of range.
    """

    uses = ("trust", "adapters")

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        learnable: bool = True,
        alpha: float = 0.4,
        warmup: int = 0,
        momentum: float = 0.995,
        queue: int = 65_536,
    ) -> None:
        super().__init__()
        low, high = TEMPERATURE_RANGE
        if not low <= temperature <= high or not 0 <= alpha <= 1 or not 0 <= momentum < 1:
            raise ConfigError(
                f"hammer can't use temperature={temperature}, alpha={alpha}, momentum={momentum}.",
                f"They lie in [{low}, {high}], [0, 1] and [0, 1).",
            )
        if min(warmup, queue) < 0:
            raise ConfigError(f"hammer can't use warmup={warmup}, queue={queue}.", "0 or more.")
        self.temperature = nn.Parameter(torch.tensor(float(temperature)), requires_grad=learnable)
        self.alpha, self.warmup, self.momentum, self.size = alpha, warmup, momentum, queue
        # Shaped by the first batch: rows [Q, K, d], which of them there are [Q, K], the next place.
        self.register_buffer("queue", torch.empty(0))
        self.register_buffer("queued", torch.empty(0, dtype=torch.bool))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self._queued_here: Tensor | None = None  # these two as the CPU knows them
        self._pointer_here = 0

    queue: Tensor
    queued: Tensor
    pointer: Tensor

    def start(
        self,
        adapters: Mapping[str, Adapter],
        train: PairedLatents,
        validation: PairedLatents,
        context: FitContext,
    ) -> None:
        self.followers = Followers(adapters, self.momentum)

    def forward(self, step: Step) -> Tensor:
        self.followers.follow(step.adapters)
        averaged = step.through(self.followers)
        own, followed = (
            torch.stack([unit_rows(x) for x in rows.values()], dim=1)  # [n, K, d]
            for rows in (step.embeddings, averaged)
        )
        here = (step.links_here >= 0).all(dim=1)
        return self.contrasted(own, followed, step.trust, step.present, here)

    def contrasted(
        self, own: Tensor, followed: Tensor, trust: Tensor, present: Tensor, here: Tensor
    ) -> Tensor:
        """The loss of a batch, whose rows the queue then has.

        Args:
            own: unit rows `[n, K, d]` of K modalities.
            followed: those of the averaged copies.
            trust: `[n]`.
            present, here: bool `[n, K]`, which modalities a row has; the second on the CPU.
        """
        self.temperature.data.clamp_(*TEMPERATURE_RANGE)
        trust = trust.to(own.dtype)
        if self.queue.ndim == 1:
            self.queue = own.new_zeros(self.size, *own.shape[1:])
            self.queued = present.new_zeros(self.size, own.shape[1])
        keys, there = torch.cat([followed, self.queue]), self._there(here)
        calls = self.called()
        alpha = self.alpha * (min(1.0, calls / self.warmup) if self.warmup else 1.0)
        losses = []
        for pair in combinations(range(own.shape[1]), 2):
            both, rows = there[:, pair].all(dim=1), here[:, pair].all(dim=1)
            every_row = bool(rows.all())
            chosen = sent(rows.nonzero()[:, 0], own.device)
            mine, trusted = (own, trust) if every_row else (own[chosen], trust[chosen])
            if len(mine):
                every = keys if both.all() else keys[sent(both.nonzero()[:, 0], keys.device)]
                first, second = pair
                mine, every = (torch.stack([x[:, first], x[:, second]], 1) for x in (mine, every))
                losses.append(contrast(mine, every, trusted, self.temperature, alpha))
        self._remember(followed, present, here)
        return torch.stack(losses).mean() if losses else own.sum() * 0

    def _there(self, here: Tensor) -> Tensor:
        """bool CPU `[n + Q, K]`: which rows of batch and queue are there. The buffers are
        read once, before the first call."""
        if self._queued_here is None:
            self._queued_here, self._pointer_here = self.queued.cpu().clone(), int(self.pointer)
        return torch.cat([here, self._queued_here])

    def _remember(self, followed: Tensor, present: Tensor, present_here: Tensor) -> None:
        """Overwrite the oldest rows of the queue with the batch's, or as many as it contains."""
        count = min(len(followed), self.size)
        if not count:
            return
        assert self._queued_here is not None  # see `_there`
        places = (self._pointer_here + torch.arange(count)) % self.size
        self._queued_here[places] = present_here[-count:]
        self._pointer_here = (self._pointer_here + count) % self.size
        places = sent(places, self.queue.device)
        self.queue[places], self.queued[places] = followed[-count:], present[-count:]
        self.pointer.fill_(self._pointer_here)

    def _load_from_state_dict(self, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        self._queued_here = None
        for name in ("queue", "queued"):
            if (found := state.get(prefix + name)) is not None:
                setattr(self, name, getattr(self, name).new_empty(found.shape))
        super()._load_from_state_dict(state, prefix, *rest)

    def log(self) -> dict[str, Tensor]:
        return {"temperature": self.temperature.detach()}


def contrast(
    own: Tensor, keys: Tensor, trust: Tensor, temperature: Tensor | float, alpha: float
) -> Tensor:
    """The mean of the four losses of unit rows `[n, 2, d]` of two modalities with keys `[m, 2, d]`,
    of which the first n are the rows' own, by trust `[n]`."""
    losses = []
    for side, other in ((0, 1), (1, 0)):
        rows = own[:, side] / temperature
        across = (rows @ keys[:, other].T).log_softmax(dim=1)  # [n, m]
        loss = (1 - alpha) * trust * across.diagonal()
        if alpha:
            with torch.no_grad():
                logits = keys[: len(own), side] @ keys[:, other].T / temperature
                soft = logits.softmax(dim=1)
            loss = loss + alpha * (soft * across).sum(dim=1)
        within = (rows @ keys[:, side].T).log_softmax(dim=1).diagonal()
        losses += [-loss.mean(), -within.mean()]
    return torch.stack(losses).mean()
