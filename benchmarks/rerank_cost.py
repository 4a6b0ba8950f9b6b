"""What re-ranking one query costs, if the tokens of its candidates are in the latent store.

    python -m benchmarks rerank_cost

Tokens are random numbers of the shapes that MiniLM and EfficientNet-lite0 give: the time depends on
nothing else. Every registered re-ranker is measured.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch

from benchmarks.harness import Bar, Options, Row, interleaved
from fusemix_core.config import Part
from fusemix_core.interfaces import Padded, Reranker
from fusemix_core.registry import registry
from fusemix_core.reranking.scoring import scores_of

TITLE = "Re-ranking"

ABOUT = """
One query with 32 candidates is ranked anew, from tokens in memory to the new order: an image
(EfficientNet-lite0's grid, 49 places of 1,280 numbers) for a text (32 tokens of MiniLM, 6 layers of
384 numbers side by side). The reference is the budget of 100 ms.
"""

CANDIDATES = 32
BUDGET = 100.0
_SHAPES = {"image": (49, 1_280, 1), "text": (32, 2_304, 6)}
"""modality → tokens, their width, layers side by side."""


def measure(options: Options) -> Iterator[Row]:
    """A row for each registered re-ranker."""
    torch.set_num_threads(options.threads)
    names = [spec.name for _, spec in registry.all_components("reranker")]
    tokens = {m: _tokens(*shape[:2]) for m, shape in _SHAPES.items()}
    forms = {name: _ranker(name, tokens) for name in names}
    found = interleaved(forms, repeats=5 if options.quick else 25, warmups=2)
    for name, seconds in found.items():
        taken = 1_000 * statistics.median(seconds)
        ratio = taken / BUDGET
        yield Row(f"{name}: {CANDIDATES} candidates", taken, "ms", "100 ms", ratio, Bar(1.0))


def _tokens(count: int, width: int) -> Padded:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(CANDIDATES, count, width, generator=draw)
    return Padded(values, torch.ones(CANDIDATES, count, dtype=torch.bool))


def _ranker(name: str, tokens: dict[str, Padded]):  # noqa: ANN202  a function
    spec = registry.component("reranker", name)
    layers = {m: shape[2] for m, shape in _SHAPES.items()}
    part = Part(name, {"layers": layers} if "layers" in spec.options else {})
    network: Reranker = registry.build("reranker", part, {m: s[1] for m, s in _SHAPES.items()})
    network.prepare({m: x.values[0] for m, x in tokens.items()})
    network.eval()
    asked = tokens["text"][torch.zeros(CANDIDATES, dtype=torch.long)]

    @torch.no_grad()
    def rank() -> list[int]:
        found = scores_of(network, {"image": tokens["image"], "text": asked})
        return found.argsort(descending=True).tolist()

    return rank
