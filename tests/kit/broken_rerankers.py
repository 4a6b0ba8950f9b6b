"""Re-rankers that break a check; see `broken_components`."""

import torch
from kit.broken_components import BROKEN, breaks
from torch.nn.functional import normalize

from fusemix_core.interfaces import Padded, Reranker
from fusemix_core.specs import ComponentSpec

__all__ = ["BROKEN"]

_SPEC = ComponentSpec(
    kind="reranker",
    name="other-options",
    target="fusemix_core.rerankers.interaction:Interaction",
    options={"dim": 3},
)
breaks("reranker", "declared_options")(_SPEC)
breaks("reranker", "light_import")(_SPEC)  # with a plugin whose listing imports a heavy package


class Means(Reranker):
    """The cosine of mapped mean tokens, that others break."""

    def __init__(self, inputs):
        super().__init__(inputs)
        self.maps = torch.nn.ModuleList(torch.nn.Linear(d, 16) for d in inputs.values())

    def mean(self, tokens):
        return tokens.filled().sum(dim=1) / tokens.mask.sum(dim=1, keepdim=True)

    def forward(self, latents):
        pair = zip(self.maps, self.inputs, strict=True)
        a, b = (normalize(one(self.mean(latents[m])), dim=1) for one, m in pair)
        return 10 * (a * b).sum(dim=1)


@breaks("reranker", "is_a_reranker")
class Plain(torch.nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.inputs = inputs

    def prepare(self, tokens):
        pass

    def forward(self, latents):
        return latents["image"].filled().sum(dim=(1, 2))


@breaks("reranker", "is_a_reranker")
class OtherInputs(Means):
    def __init__(self, inputs):
        super().__init__(inputs)
        self.inputs = dict(reversed(inputs.items()))


@breaks("reranker", "a_score_for_each_pair")
class Column(Means):
    def forward(self, latents):
        return super().forward(latents)[:, None]


@breaks("reranker", "pair_by_pair")
class OfBatch(Means):
    def forward(self, latents):
        return super().forward(latents).softmax(dim=0)


@breaks("reranker", "a_table_of_pairs")
class Turned(Means):
    def table(self, latents):
        return super().table(latents).flip(0)


@breaks("reranker", "padding")
class Unmasked(Means):
    def mean(self, tokens):
        return tokens.values.nan_to_num().mean(dim=1)


@breaks("reranker", "saveable")
class Forgetful(Means):
    def prepare(self, tokens):
        self.shift = tokens["image"].mean()

    def forward(self, latents):
        return super().forward(latents) + getattr(self, "shift", 0.0)


@breaks("reranker", "learns")
class Constant(Means):
    def forward(self, latents):
        return 0 * super().forward(latents)


@breaks("reranker", "input_unmodified")
class InPlace(Means):
    def forward(self, latents):
        own = {m: Padded(x.values.mul_(2), x.mask) for m, x in latents.items()}
        return super().forward(own)


@breaks("reranker", "surroundings")
class Seeding(Means):
    def forward(self, latents):
        torch.manual_seed(0)
        return super().forward(latents)
