"""`Reranker`: the latent tokens of a query and of a candidate to a score of the pair."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from fusemix_core.padded import Padded


class Reranker(nn.Module, ABC):
    """A network that looks at both items of a pair; constructed as `Reranker(inputs, **options)`.

    `inputs` has the two modalities in order, each with the width of its tokens. It, the options and
    the weights are all that a saved model contains. One network serves both directions: either item
    may be the query.

    If tokens have the latents of several layers side by side, `fusemix rerank` says so by the
    option `layers`, modality → how many layers, of those networks that have this option.

    Example:
        class Means(Reranker):
            def __init__(self, inputs, *, width=64):
                super().__init__(inputs)
                self.standards = Modules(Standard(d) for d in inputs.values())
                self.maps = Modules(torch.nn.Linear(d, width) for d in inputs.values())

            def prepare(self, tokens):
                for modality, standard in zip(self.inputs, self.standards):
                    standard.learn(tokens[modality])

            def forward(self, latents):
                sides = []
                for modality, standard, own in zip(self.inputs, self.standards, self.maps):
                    mask = latents[modality].mask
                    tokens = standard(latents[modality].filled()) * mask[..., None]
                    sides.append(own(tokens.sum(dim=1) / mask.sum(dim=1, keepdim=True)))
                return torch.cosine_similarity(*sides)
    """

    options: dict[str, Any]

    def __new__(cls, *shape: Any, **options: Any) -> Self:
        network = super().__new__(cls)
        vars(network)["options"] = options
        return network

    def __init__(self, inputs: Mapping[str, int]) -> None:
        super().__init__()
        self.inputs = dict(inputs)

    def prepare(self, tokens: Mapping[str, Tensor]) -> None:  # noqa: B027  some learn nothing
        """Take what is needed from training tokens, once, before training. The same tokens give
        the same.

        Args:
            tokens: modality → float32 `[n, d]`, tokens of a sample of training items.
        """

    @abstractmethod
    def forward(self, latents: Mapping[str, Padded]) -> Tensor:
        """Scores float32 `[n]` of n pairs; larger means that the two belong together.

        The score of a pair does not depend on the other pairs, nor on padding.

        Args:
            latents: modality → the tokens of n items, in the order of `inputs`. An item has one
                token or more.
        """

    def table(self, latents: Mapping[str, Padded]) -> Tensor:
        """Scores `[n, m]` of each of n items of the first modality with each of m of the second, as
        `forward` gives them for pairs.

        Training against all other pairs of a batch takes it. Override it if that can be computed at
        less cost than pair by pair.
        """
        first, second = (latents[modality] for modality in self.inputs)
        count, most = len(first), len(second)
        row, column = torch.arange(count), torch.arange(most)
        both = row.repeat_interleave(most), column.repeat(count)
        pairs = dict(zip(self.inputs, (first[both[0]], second[both[1]]), strict=True))
        return self(pairs).view(count, most)
