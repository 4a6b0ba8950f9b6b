"""Fitting re-rankers, and choosing among them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fusemix_core.config import Part, to_dict
from fusemix_core.context import FitContext
from fusemix_core.engine.checkpoint import run_digest
from fusemix_core.engine.loop import Trainer
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.randomness import seeded, stream
from fusemix_core.engine.tables import on_device
from fusemix_core.fusers.learning import with_places
from fusemix_core.interfaces import as_tokens
from fusemix_core.mixups.fusemix import FuseMixMixup
from fusemix_core.mixups.none import NoMixup
from fusemix_core.registry import Registry, registry
from fusemix_core.rerank_config import RerankSettings
from fusemix_core.reranker import Reranker
from fusemix_core.reranking.learning import NETWORK, RerankFit
from fusemix_core.reranking.mixing import Mix, choose
from fusemix_core.reranking.negatives import Negatives, hard_negatives, random_negatives
from fusemix_core.reranking.scoring import score_shortlist
from fusemix_core.reranking.split import Split, shortlist

SAMPLE = 1_024
"""Training items of a modality, at most, whose tokens a network may learn from before training."""
QUERIES = 256
"""Validation queries of a direction, at most, that each evaluation during training takes."""
MOST_QUERIES = 2_000
"""The same for the weight in the end."""
RANDOM = 1_024
"""Items of a pool of random negatives, at most."""
MOST_RANDOM = 1 << 23
"""Items of all pools of random negatives, at most, unless `pool` asks for more."""


@dataclass(frozen=True)
class FittedReranker:
    """A network that was trained, and how its score is mixed with that of the fused model.

    Attributes:
        part: its registered name and options.
        network: in eval mode on the CPU.
        mix: chosen on validation.
    """

    part: Part
    network: Reranker
    mix: Mix


def fit_reranker(
    part: Part,
    train: Split,
    validation: Split,
    settings: RerankSettings,
    context: FitContext,
    layers: Mapping[str, int] | None = None,
    mined: Sequence[Negatives] | None = None,
    registry: Registry = registry,
) -> FittedReranker:
    """Train a network on pairs and their negatives.

    Args:
        part: the registered name of the network, and its options.
        train, validation: the pairs. The weights that are kept, and that of the network's score,
            are those that rank validation queries best.
        settings: of negatives and training.
        context: seed, device, checkpoints and callbacks.
        layers: modality → how many layers of the encoder each token has side by side; None: one.
        mined: the pools of negatives, in each direction; None: as the settings say.

    Raises:
        DataError: there are too few pairs.
        UnknownNameError: no such network, or option of it.

    Example:
        how = RerankSettings(), FitContext(seed=0)
        fitted = fit_reranker(Part("interaction"), train, validation, *how)
        print(fitted.mix.alpha, fitted.mix.tried)
    """
    options = dict(part.options)
    if layers and "layers" in registry.component("reranker", part.name).options:
        options = {"layers": dict(layers), **options}
    part = Part(part.name, options)
    widths = {m: table.shape[-1] for m, table in train.tokens.tables.items()}

    def build() -> Reranker:
        return registry.build("reranker", part, widths)

    network = fit_network(build, part, train, validation, settings, context, mined)
    return FittedReranker(part, network, mix_of(network, validation, settings.top_k))


def fit_network(
    build: Callable[[], Reranker],
    part: Part,
    train: Split,
    validation: Split,
    settings: RerankSettings,
    context: FitContext,
    mined: Sequence[Negatives] | None = None,
) -> Reranker:
    """Train the network that `build` makes, which a checkpoint knows by `part`; other arguments as
    of `fit_reranker`. In eval mode on the CPU."""
    with seeded(context.seed, context.device):
        network = build()
        network.prepare({m: sample(train, m) for m in train.modalities})
        kind = negatives_of(settings, network)
        drawn = [] if kind == "batch" else mined or _negatives(train, kind, settings, context.seed)
        return _trained(network, part, train, validation, settings, context, drawn)


def best_of(fitted: Mapping[str, FittedReranker]) -> str:
    """The name of the one that ranks validation queries best; the first of equal ones."""
    return max(fitted, key=lambda name: fitted[name].mix.score)


def mix_of(network: Reranker, validation: Split, top_k: int) -> Mix:
    """The weight of a network's score, chosen on validation queries."""
    lists = [shortlist(validation, *way, top_k, MOST_QUERIES) for way in validation.directions]
    return choose(lists, [score_shortlist(network, validation.tokens, one) for one in lists])


def sample(split: Split, modality: str) -> Tensor:
    """float32 `[n, d]`: the tokens of some items that a split links, from all over it."""
    ids = split.tokens.linked(modality)
    if len(ids) > SAMPLE:
        ids = ids[torch.linspace(0, len(ids) - 1, SAMPLE).long()]
    found = as_tokens(split.tokens.latents_of(modality, ids))
    return found.values[found.mask].float()


def _trained(
    network: Reranker,
    part: Part,
    train: Split,
    validation: Split,
    settings: RerankSettings,
    context: FitContext,
    negatives: Sequence[Negatives],
) -> Reranker:
    """The network after training, in eval mode on the CPU."""
    mixed = not negatives and settings.mix > 0
    mixup = FuseMixMixup(alpha=settings.mix, alpha_max=settings.mix) if mixed else NoMixup()
    plan = plan_steps(len(train), mixup.rows_per_pair, settings.training)
    lists = [shortlist(validation, *way, settings.top_k, QUERIES) for way in validation.directions]
    described = {
        "reranker": to_dict(part),
        "settings": to_dict(settings),
        "training": to_dict(settings.training),
        "scores": _digest([*(one.pool for one in negatives), *(one.scores for one in lists)]),
    }
    digest = run_digest(described, train.tokens, validation.tokens, context)
    pairs, held = on_device(with_places(train.tokens), validation.tokens, context.device)
    fit = RerankFit(network, pairs, train.partners, negatives, settings.count, held, lists)
    Trainer(fit, pairs, mixup, plan, context, digest).run()
    return fit.modules[NETWORK].eval()


def negatives_of(settings: RerankSettings, network: Reranker) -> str:
    """The negatives that the network is trained against: `batch`, `hard` or `random`."""
    if settings.negatives != "auto":
        return settings.negatives
    return "random" if type(network).table is Reranker.table else "batch"


def _negatives(train: Split, kind: str, settings: RerankSettings, seed: int) -> list[Negatives]:
    """The pools that negatives are drawn from, in both directions."""
    if kind == "hard":
        return [hard_negatives(train, *way, settings.pool) for way in train.directions]
    size = max(settings.pool, min(RANDOM, MOST_RANDOM // len(train)))
    return [
        random_negatives(train, *way, size, stream(seed, f"negatives {way}"))
        for way in train.directions
    ]


def _digest(tensors: Sequence[Tensor]) -> str:
    return hashlib.sha256(b"".join(x.contiguous().numpy().tobytes() for x in tensors)).hexdigest()
