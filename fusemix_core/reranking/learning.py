"""The loss that the engine minimises for a re-ranker, and its score on validation queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fusemix_core.engine.fit import Fit
from fusemix_core.fusers.learning import PLACE
from fusemix_core.interfaces import Padded, PairedLatents, Step, as_tokens
from fusemix_core.reranker import Reranker
from fusemix_core.reranking.mixing import choose
from fusemix_core.reranking.negatives import Negatives
from fusemix_core.reranking.scoring import score_shortlist
from fusemix_core.reranking.split import Partners, Shortlist

NETWORK = "reranker"


class RerankFit(Fit[Reranker]):
    """Trains a network to score a pair above its negatives.

    The loss is a softmax cross entropy: the pair against the pairs with another item on one side,
    then on the other; the mean of both. The other items are those of the batch, or if there are
    `negatives`, some of these.

    Args:
        network: what is trained.
        train: the training pairs, as `with_places` gives them.
        partners: who belongs to whom in training.
        negatives: of each direction; none for the other pairs of the batch.
        count: negatives of a pair in each direction.
        validation: the tables of the validation pairs.
        lists: their short lists, one for each direction.
    """

    uses = ("latents", "facts")
    reader = "The training of a re-ranker"

    def __init__(
        self,
        network: Reranker,
        train: PairedLatents,
        partners: Partners,
        negatives: Sequence[Negatives],
        count: int,
        validation: PairedLatents,
        lists: Sequence[Shortlist],
    ) -> None:
        super().__init__({NETWORK: network})
        self.train, self.partners = train, partners
        self.negatives, self.count = negatives, count
        self.validation, self.lists = validation, lists

    def loss(self, step: Step) -> Tensor:
        own = {m: as_tokens(step.own.latents[m]) for m in self.train.modalities}
        places = step.facts[PLACE].long().cpu()
        if self.negatives:
            return self._against_drawn(own, places[:, 0])
        return self._against_batch(own, places)

    def _against_batch(self, own: Mapping[str, Padded], places: Tensor) -> Tensor:
        """The loss against the other rows of the batch, which are mixed of the training rows
        `places` `[b, s]`. Two rows that have partners among their sources aren't negatives."""
        sources = self.train.links[places]  # [b, s, 2]
        first, second = sources[:, None, :, None, 0], sources[None, :, None, :, 1]
        together = self.partners.together(
            self.train.modalities[0], first, self.train.modalities[1], second
        )
        partners = together.flatten(2).any(dim=2).fill_diagonal_(False)
        scores = self.modules[NETWORK].table(own)
        scores = scores.masked_fill(partners.to(scores.device), -torch.inf)
        wanted = torch.arange(len(scores), device=scores.device)
        return (cross_entropy(scores, wanted) + cross_entropy(scores.T, wanted)) / 2

    def _against_drawn(self, own: Mapping[str, Padded], rows: Tensor) -> Tensor:
        """The loss against items drawn for each row."""
        device = next(iter(own.values())).device
        sides, allowed = [own], []
        for one in self.negatives:
            items, fine = one.draw(rows, self.count)
            row = torch.arange(len(rows)).repeat_interleave(items.shape[1]).to(device)
            others = as_tokens(self.train.latents_of(one.target, items.flatten(), device))
            sides.append({one.query: own[one.query][row], one.target: others})
            allowed.append(fine.to(device))
        pairs = {m: Padded.cat([side[m] for side in sides]) for m in own}
        scores = self.modules[NETWORK](pairs)
        parts = scores.split([len(rows), *(fine.numel() for fine in allowed)])
        losses = []
        for part, fine in zip(parts[1:], allowed, strict=True):
            against = part.view(fine.shape).masked_fill(~fine, -torch.inf)
            logits = torch.cat([parts[0][:, None], against], dim=1)
            losses.append(cross_entropy(logits, torch.zeros_like(rows, device=device)))
        return torch.stack(losses).mean()

    def validate(self, modules: Mapping[str, Reranker]) -> Mapping[str, float]:
        """The mean reciprocal rank with the best weight, and that weight."""
        network = modules[NETWORK]
        found = [score_shortlist(network, self.validation, one) for one in self.lists]
        mix = choose(self.lists, found)
        return {"score": mix.score, "weight": mix.alpha, "two_tower": mix.tried[0.0]}
