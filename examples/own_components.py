"""A part of your own for each interface: encoder, adapter, mixup, objective, aligner, scorer,
evaluator, callback; used by name in two runs on the sample.

    python examples/own_components.py

Each class is registered under a name, with its options and their defaults, and then stands in a
recipe like fusemix's own. In a package of yours, the hooks `fusemix_encoders` and
`fusemix_components` register them instead, for the command line too.
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from sample import sample_rows, show_recall, write_csv
from torch import Tensor, nn
from torch.nn.functional import gelu, logsigmoid, normalize

import fusemix_core
from fusemix_core import Adapter, Aligner, Encoder, EncoderSpec, Evaluator, Mixup, Objective, Scorer
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.config import Recipe
from fusemix_core.interfaces import Batch, FitContext, Measured, PairedLatents, Step, as_rows
from fusemix_core.registry import registry
from fusemix_core.runs.reporter import Reporter
from fusemix_core.sections import Figure, Section, Table

DIM = 1024


class Letters(Encoder):
    """Texts as counts of their letter triples, hashed to `DIM` numbers. No weights at all."""

    spec = EncoderSpec(
        name="letters", modality="text", target="own_components:Letters", dim=DIM, normalised=True
    )

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        return cls(spec)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> Self:
        return cls(spec)

    def collate(self, items: Sequence[str]) -> Tensor:
        counts = torch.zeros(len(items), DIM)
        for row, item in zip(counts, items, strict=True):
            if not isinstance(item, str):
                raise TypeError(f"letters takes str, not {type(item).__name__}")
            text = f" {item.lower()} "
            for i in range(len(text) - 2):
                row[zlib.crc32(text[i : i + 3].encode()) % DIM] += 1
        return counts

    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        return normalize(batch.sqrt(), dim=1)


class Bottleneck(Adapter):
    """A linear map through `rank` dimensions, with a nonlinearity there."""

    def __init__(self, dim_in: int, dim_out: int, *, rank: int = 256) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim_in, rank), nn.Linear(rank, dim_out)
        self.skip = nn.Linear(dim_in, dim_out, bias=False)

    def forward(self, latents: Tensor) -> Tensor:
        return self.skip(latents) + self.up(gelu(self.down(latents)))


class Noise(Mixup):
    """Gaussian noise on every latent, `scale` times the spread of its dimension in the batch; less
    as training goes on."""

    def __init__(self, *, scale: float = 0.3) -> None:
        self.scale = scale

    def __call__(self, batch: Batch, generator: torch.Generator, progress: float) -> Batch:
        scale = self.scale * (1 - progress)

        def noisy(x: Tensor, own: Tensor) -> Tensor:
            noise = torch.randn(x.shape, generator=generator).to(x)
            spread = x[own].std(dim=0, correction=0)
            return x + scale * spread * noise

        return batch.changed(noisy)


class PairwiseSigmoid(Objective):
    """The loss of SigLIP (Zhai et al., arXiv:2303.15343): each pair of rows alone is told to match
    or not. Rows that share an item count as matching."""

    def __init__(self, *, temperature: float = 0.1, bias: float = -5.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / temperature).log())
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, step: Step) -> Tensor:
        there, links = step.present, step.links
        rows = [normalize(e, dim=1) for e in step.embeddings.values()]
        losses = []
        for a in range(len(rows)):
            for b in range(a + 1, len(rows)):
                both = there[:, a] & there[:, b]
                ids = links[both][:, 0]  # [n, K], of unmixed rows
                same = (ids[:, None, a] == ids[None, :, a]) | (ids[:, None, b] == ids[None, :, b])
                logits = self.scale.exp() * rows[a][both] @ rows[b][both].T + self.bias
                losses.append(-logsigmoid(torch.where(same, logits, -logits)).sum(1).mean())
        return torch.stack(losses).mean()

    def log(self) -> dict[str, float]:
        return {"temperature": 1 / self.scale.exp().item()}


class Ridge(Aligner):
    """Closed form: each modality is regressed onto the latents of the last one."""

    def __init__(self, *, penalty: float = 1.0) -> None:
        self.penalty = penalty

    def fit(
        self, train: PairedLatents, validation: PairedLatents, recipe: Recipe, context: FitContext
    ) -> dict[str, Adapter]:
        rows = torch.arange(len(train))[(train.links >= 0).all(dim=1)]
        latents = {m: as_rows(x) for m, x in train.batch(rows).latents.items()}
        goal = latents[train.modalities[-1]]
        goal_mean = goal.mean(dim=0)
        adapters: dict[str, Adapter] = {}
        for modality, own in latents.items():
            mean = own.mean(dim=0)
            own = (own - mean).double()
            gram = own.T @ own
            gram += self.penalty * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
            weight = torch.linalg.solve(gram, own.T @ (goal - goal_mean).double()).float()
            if modality == train.modalities[-1]:
                weight = torch.eye(own.shape[1])
            adapter = LinearAdapter(own.shape[1], goal.shape[1])
            with torch.no_grad():
                adapter.out.weight.copy_(weight.T)
                adapter.out.bias.copy_(-mean @ weight)
            adapters[modality] = adapter.eval()
        return adapters


class Centred(Scorer):
    """Cosine after each modality's mean training embedding is taken away, against the gap between
    modalities. The means are kept in the saved model."""

    def __init__(self) -> None:
        self.means: dict[str, Tensor] = {}

    def fit(self, train: Mapping[str, Tensor]) -> None:
        self.means = {modality: rows.mean(dim=0) for modality, rows in train.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        return self.means

    @tensors.setter
    def tensors(self, value: Mapping[str, Tensor]) -> None:
        self.means = dict(value)

    def score(self, queries: Tensor, gallery: Tensor, query: str, target: str) -> Tensor:
        a = normalize(queries - self.means[query].to(queries), dim=1)
        b = normalize(gallery - self.means[target].to(gallery), dim=1)
        return a @ b.T


class ReciprocalRank(Evaluator):
    """The mean of 1 / rank of the best partner, each way. Its numbers are in results.json, in the
    model card, and with a figure in the report."""

    def __call__(self, data: Measured) -> dict[str, Any]:
        found = {}
        for q, query in enumerate(data.modalities):
            for t, target in enumerate(data.modalities):
                if q == t:
                    continue
                rows, gallery = data.embeddings[query], data.embeddings[target]
                scores = data.score(rows, gallery, query, target)
                linked = data.links[(data.links[:, q] >= 0) & (data.links[:, t] >= 0)]
                partner = torch.zeros_like(scores, dtype=torch.bool)
                partner[linked[:, q], linked[:, t]] = True
                asked = partner.any(dim=1)
                best = scores.masked_fill(~partner, -torch.inf).max(dim=1, keepdim=True).values
                rank = 1 + (scores > best).sum(dim=1)
                found[f"{query}->{target}"] = (1 / rank[asked].double()).mean().item()
        return {"mean": sum(found.values()) / len(found), "directions": found}

    def sections(self, metrics: Mapping[str, Any], data: Measured) -> list[Section]:
        names, values = zip(*metrics["directions"].items(), strict=True)
        table = Table(["direction", "mean of 1 / rank"], list(zip(names, values, strict=True)))
        bars = Figure(lambda axes: axes.bar(names, values), alt="Mean of 1 / rank by direction")
        return [Section("Reciprocal rank", tables=[table], figures=[bars])]


class Narrator(Reporter):
    """A callback: told of each stage, step and evaluation of a run."""

    def stage(self, text: str) -> None:
        print(f"-- {text}")

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        numbers = (f"{k} {v:.3f}" for k, v in metrics.items() if isinstance(v, float))
        print(f"   step {step}: {', '.join(numbers)}")


registry.add(Letters)
registry.add_component("adapter", "bottleneck", Bottleneck, rank=256)
registry.add_component("mixup", "noise", Noise, scale=0.3)
registry.add_component("objective", "pairwise-sigmoid", PairwiseSigmoid, temperature=0.1, bias=-5.0)
registry.add_component("aligner", "ridge", Ridge, penalty=1.0)
registry.add_component("scorer", "centred", Centred)
registry.add_component("evaluator", "reciprocal-rank", ReciprocalRank)

TRAINED = {
    "name": "fusemix",
    "dim": 256,
    "adapter": {"name": "bottleneck", "options": {"rank": 128}},
    "mixup": {"name": "noise"},
    "objective": {"name": "pairwise-sigmoid"},
    "scorer": {"name": "centred"},
    "training": {"epochs": 20, "batch_size": 256, "warmup_steps": 5, "evaluate_every": 5},
}
CLOSED_FORM = {"name": "fusemix", "aligner": {"name": "ridge"}, "scorer": {"name": "centred"}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=int, default=800, help="figures of the sample to use")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pairs.csv"
        rows = sample_rows(args.limit)
        write_csv(data, [{k: row[k] for k in ("image", "text", "split")} for row in rows])
        for recipe in (TRAINED, CLOSED_FORM):
            run(recipe, data)


def run(recipe: dict[str, Any], data: Path) -> None:
    """Align the sample's pictures with the letters of their descriptions, and measure."""
    result = fusemix_core.align(
        {"image": "efficientnet-lite0", "text": "letters"},
        {"source": str(data), "split_column": "split", "allow_outside": True},
        recipe=recipe,
        evaluators=["reciprocal-rank"],
        reporter=Narrator(),
    )
    show_recall(result.results["test"]["retrieval"]["directions"])
    print(f"mean reciprocal rank {result.results['test']['reciprocal-rank']['mean']:.3f}")

    # The saved model names the components; who loads it has them registered, as here.
    loaded = fusemix_core.FusedModel.from_pretrained(result.folder.model)
    embedding = loaded.encode("text", ["a map of Africa"])
    print(f"saved and loaded: {result.folder.model}, {tuple(embedding.shape)}\n")


if __name__ == "__main__":
    main()
