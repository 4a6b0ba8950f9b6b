"""The `concept-balanced` selector: as many pairs of each concept, the poorest concepts first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import FitContext, LatentTable, PairedLatents, Selector, rows_of
from fusemix_core.selectors.candidates import candidates, check_size

CHUNK = 8192
SAMPLE = 256
"""Candidates a concept of which concepts are found."""
ROUNDS = 20
ORDERS = ("last", "mean")


class ConceptBalanced(Selector):
    """Freeze-Align's curation: each concept takes the rows closest to it, in turn.

    by: the modality whose items are compared; "" is the first. concepts: how many are found among
    the candidates, by spherical k-means; prototypes: a safetensors file that has them instead, a
    tensor `prototypes` `[K, d]` of latents. order: which concept counts as poor, by the `last` or
    the `mean` of its kept scores. spare: how many times what it will take a concept keeps, so that
    it has others where poorer ones take its best.
    """

    fewer = "those that concepts keep are all taken, or lack the modality"

    uses = ("latents",)

    def __init__(
        self,
        *,
        by: str = "",
        concepts: int = 100,
        prototypes: str = "",
        order: str = "last",
        spare: float = 8.0,
    ) -> None:
        if order not in ORDERS or concepts < 1 or spare < 1:
            raise ConfigError(
                f"order is {order!r}, concepts {concepts}, spare {spare}.",
                "order is 'last' or 'mean'; there is 1 concept or more; spare is 1 or more.",
            )
        self.by, self.concepts, self.prototypes = by, concepts, prototypes
        self.order, self.spare = order, spare

    def select(self, pairs: PairedLatents, k: int, context: FitContext) -> Tensor:
        check_size(k, len(pairs))
        table, rows, items = candidates(pairs, self.by)
        if not min(k, len(rows)):
            return rows[:0]
        if self.prototypes:
            concepts = read_prototypes(self.prototypes, table.dim).to(context.device)
        else:
            count = min(self.concepts, k, len(rows))
            concepts = find_concepts(table, items, count, context)
        each = -(-k // len(concepts))
        kept = min(int(self.spare * each) + 1, len(rows))
        scores, best = keep_best(cosines(table, items, concepts, context), kept)
        order = poorest_first(scores, self.order)
        taken = assign(best, order, each)[order].T.flatten()  # a row of each concept, then again
        return rows[taken[taken >= 0][:k]]


def cosines(
    table: LatentTable, items: Tensor, concepts: Tensor, context: FitContext
) -> Iterator[tuple[Tensor, Tensor]]:
    """(int64 `[m]`: which of the items, `[m, K]`: their cosines with the concepts), in chunks."""
    for part in torch.arange(len(items)).split(CHUNK):
        latents = rows_of(table, items[part]).to(concepts)
        yield part, normalize(latents, dim=1) @ concepts.T
        for callback in context.callbacks:
            callback.on_pairs(int(part[-1]) + 1, len(items))


def keep_best(chunks: Iterable[tuple[Tensor, Tensor]], most: int) -> tuple[Tensor, Tensor]:
    """For each concept the best scores and whose they are, both CPU `[most, K]`, best first and of
    equal ones the first; with fewer samples, as many rows as there are.

    chunks: (int64 `[m]` ids, scores `[m, K]`). A sample may be kept by several concepts.
    """
    kept: tuple[Tensor, Tensor] | None = None
    for ids, chunk in chunks:
        ids = ids.to(chunk.device)[:, None].expand_as(chunk)
        if kept is not None:
            chunk, ids = torch.cat([kept[0], chunk]), torch.cat([kept[1], ids])
        order = chunk.argsort(dim=0, descending=True, stable=True)[:most]
        kept = chunk.gather(0, order), ids.gather(0, order)
    assert kept is not None, "there is no chunk"
    return kept[0].cpu(), kept[1].cpu()


def poorest_first(scores: Tensor, by: str) -> Tensor:
    """int64 `[K]`: the concepts by ascending `last` or `mean` of their kept scores `[most, K]`."""
    return (scores[-1] if by == "last" else scores.mean(dim=0)).argsort(stable=True)


def assign(best: Tensor, order: Tensor, each: int) -> Tensor:
    """int64 `[K, each]`: what each concept takes of its kept samples `[most, K]`, -1 if there is
    no more.

    In the order given, each takes its best that none before it has taken. The last of the kept ones
    serves the order only and is never taken (unless it is the only one).
    """
    taken: set[int] = set()
    out = torch.full((best.shape[1], each), -1)
    for concept in order.tolist():
        free = (i for i in best[: max(len(best) - 1, 1), concept].tolist() if i not in taken)
        own = [i for i, _ in zip(free, range(each), strict=False)]
        out[concept, : len(own)] = torch.tensor(own, dtype=torch.int64)
        taken.update(own)
    return out


def find_concepts(table: LatentTable, items: Tensor, count: int, context: FitContext) -> Tensor:
    """`[count, d]`, unit norm: spherical k-means of a sample of the items, by the seed, from starts
    that are drawn as far from each other as k-means++ draws them.

    A concept that nothing is closest to becomes the item that is farthest from its own.
    """
    draw = torch.Generator().manual_seed(context.seed)
    sample = torch.randperm(len(items), generator=draw)[: SAMPLE * count]
    parts = [rows_of(table, items[part]).to(context.device) for part in sample.split(CHUNK)]
    latents = normalize(torch.cat(parts), dim=1)
    concepts = latents[:count].clone()
    far = 1 - latents @ concepts[0]  # of each from the nearest of the starts
    for i in range(1, count):
        weight = far.clamp(min=1e-9).cpu().double()
        concepts[i] = latents[int(torch.multinomial(weight, 1, generator=draw))]
        far = torch.minimum(far, 1 - latents @ concepts[i])
    for _ in range(ROUNDS):
        parts = [(part @ concepts.T).max(dim=1) for part in latents.split(CHUNK)]
        score = torch.cat([p.values for p in parts])
        closest = torch.cat([p.indices for p in parts])
        sums = torch.zeros_like(concepts).index_add_(0, closest, latents)
        empty = torch.bincount(closest, minlength=count) == 0
        sums[empty] = latents[score.argsort(stable=True)[: int(empty.sum())]]
        concepts = normalize(sums, dim=1)
    return concepts


def read_prototypes(path: str, dim: int) -> Tensor:
    """`[K, dim]`, unit norm, of a safetensors file. Raises `ConfigError` if it has none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(Path(path).expanduser()).get("prototypes")
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path} can't be read: {error}", "It is a safetensors file.") from error
    if found is None or found.ndim != 2 or found.shape[1] != dim or not len(found):
        got = "no such tensor" if found is None else list(found.shape)
        raise ConfigError(
            f"{path} must hold `prototypes` [K, {dim}], and contains {got}.",
            "A prototype is a latent of the encoder, or a mean of some.",
        )
    return normalize(found.float(), dim=1)
