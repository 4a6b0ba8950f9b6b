"""Measures ARL's knowledge alignment on ChEBI-20 with few pairs, and writes the tables of
docs/methods/arl.md.

python -m benchmarks.arl --data DATA   # five seeds: about a minute of one core
python -m benchmarks.arl               # only the page, from what is kept

DATA contains chebi20/validation.tsv. Each seed draws 330 molecules for validation and 500 for the
test. Of the others, 100 are training pairs. The statements of all others, paired or not, are
the triples: no statement of a validation or test molecule is among them. The
epoch is chosen on validation, and so is the weight if there are several. The test is measured once.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fusemix_arl.knowledge import Mentions

from benchmarks.arl.page import RESULTS, write
from benchmarks.arl.statements import statements
from fusemix_core.config import DataConfig, Part
from fusemix_core.data import read_pairs
from fusemix_core.data.facts import Fact
from fusemix_core.devices import resolve_device
from fusemix_core.fuser import Labelled
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents
from fusemix_core.registry import registry
from fusemix_core.runs.config import find_recipe
from fusemix_core.runs.encode import Encoding, encode_dataset
from fusemix_core.runs.reporter import Reporter
from fusemix_core.tasks.multilabel import Multilabel

SEEDS, HELD_OUT, TEST = 5, 330, 500
PAIRS = (100,)
WEIGHTS = (1.0,)
OFTEN = 5
"""How many molecules must have a class or a role, for it to be in the graph."""
SETTINGS = (
    "dim=128",
    "adapter=linear",
    "mixup=none",
    "training.epochs=24",
    "training.batch_size=50",
    "training.warmup_steps=10",
    "training.evaluate_every=6",
)
KNOWLEDGE = {"width": 32, "heads": 2, "head_width": 16, "epochs": 10}
ARMS = {
    "graph": ("triples.csv", "attention"),
    "shuffled": ("shuffled.csv", "attention"),
    "none": ("triples.csv", "none"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder of real datasets")
    data = parser.parse_args().data
    if data is not None:
        torch.set_num_threads(1)
        pairs = encoded(data / "chebi20" / "validation.tsv")
        began = time.process_time()
        seeds = [measured(pairs, seed) for seed in range(SEEDS)]
        results = {"cpu_seconds": round(time.process_time() - began), "seeds": seeds}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write()


def encoded(path: Path) -> PairedLatents:
    """All pairs, with the descriptions as the fact `words`."""
    columns = {"molecule": "SMILES", "text": "description"}
    config = DataConfig((str(path),), columns=columns, facts={"words": "description:text"})
    specs = {m: registry.encoder(e, m) for m, e in (("molecule", "morgan"), ("text", "minilm"))}
    dataset = read_pairs(config, {m: spec.takes for m, spec in specs.items()})
    how = Encoding(
        resolve_device("cpu"), views={"molecule": "pooled", "text": "layers-middle-last"}
    )
    found = encode_dataset(dataset, specs, how, Reporter(), max_bad=0.0)
    links = torch.from_numpy(found.dataset.links)
    return PairedLatents(dict(found.tables), links, {"words": found.dataset.facts["words"]})


def measured(pairs: PairedLatents, seed: int) -> dict[str, Any]:
    """Number of pairs → arm → measures on the test rows."""
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    validation, test = order[:HELD_OUT], order[HELD_OUT : HELD_OUT + TEST]
    known = order[HELD_OUT + TEST :]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entities = write_triples(pairs, known, folder, seed)
        labels = mentioned(pairs, entities)
        for count in PAIRS:
            rows = {"train": known[:count], "validation": validation, "test": test}
            parts = {split: pairs.select(own) for split, own in rows.items()}
            flags = {split: labels[own] for split, own in rows.items()}
            found[str(count)] = of_count(parts, flags, folder, seed)
    return {"entities": len(entities), "pairs": found}


def write_triples(pairs: PairedLatents, rows: torch.Tensor, folder: Path, seed: int) -> list[str]:
    """Write the statements of the rows, and the same with tails exchanged among those of a
    relation; the entities that are stated often."""
    words = pairs.facts["words"]
    texts = [words.names[words.values[row]] for row in rows.tolist()]
    said = [
        (f"molecule number {i}", *one) for i, text in enumerate(texts) for one in statements(text)
    ]
    counts = Counter(tail for _, _, tail in dict.fromkeys(said))
    said = [one for one in dict.fromkeys(said) if counts[one[2]] >= OFTEN]
    draw, shuffled = np.random.default_rng(seed), list(said)
    for relation in {one[1] for one in said}:
        at = [i for i, one in enumerate(said) if one[1] == relation]
        for i, j in zip(at, draw.permutation(at).tolist(), strict=True):
            shuffled[i] = (said[i][0], relation, said[j][2])
    for name, triples in (("triples.csv", said), ("shuffled.csv", shuffled)):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerows([("head", "relation", "tail"), *triples])
    return sorted({tail for _, _, tail in said})


def mentioned(pairs: PairedLatents, entities: list[str]) -> np.ndarray:
    """bool `[n, e]`: the entities that each row's text mentions."""
    words, find = pairs.facts["words"], Mentions(entities)
    flags = np.zeros((len(words.names), len(entities)), bool)
    for i, text in enumerate(words.names):
        flags[i, [one.entity for one in find(text)]] = True
    return flags[words.values]


def of_count(
    parts: dict[str, PairedLatents], flags: dict[str, np.ndarray], folder: Path, seed: int
) -> dict[str, Any]:
    """Arm → recall and AUROC on the test rows, the weight chosen on validation."""
    found: dict[str, Any] = {"latents": {"auroc": auroc(parts, flags, None)}}
    tries: dict[str, list[tuple[Part, float]]] = {"infonce": [(Part("infonce"), 0.0)]}
    for arm, (file, graph) in ARMS.items():
        own = {"triples": str(folder / file), "graph": graph, **KNOWLEDGE}
        tries[arm] = [(Part("arl", {**own, "weight": w}), w) for w in WEIGHTS]
    for arm, parts_of_arm in tries.items():
        best: tuple[float, float, Any] = (-1.0, 0.0, None)
        for objective, weight in parts_of_arm:
            recipe = find_recipe({"name": "fusemix", "objective": objective.name}, SETTINGS)
            recipe = replace(recipe, objective=objective)
            aligner = registry.build("aligner", recipe.aligner)
            made = aligner.fit(parts["train"], parts["validation"], recipe, FitContext(seed=seed))
            score = recall(parts["validation"], made)
            if score > best[0]:
                best = (score, weight, made)
        _, weight, adapters = best
        found[arm] = {
            "weight": weight,
            "recall": recall(parts["test"], adapters),
            "auroc": auroc(parts, flags, adapters),
        }
        print(
            f"seed {seed}, {len(parts['train'])} pairs: {arm} {found[arm]}, "
            f"{time.process_time():.0f} CPU seconds",
            flush=True,
        )
    return found


@torch.no_grad()
def embedded(pairs: PairedLatents, adapters: Any, modality: str) -> torch.Tensor:
    """Unit rows `[n, d]` of a modality."""
    latents = pairs.only([modality]).batch(torch.arange(len(pairs))).latents[modality]
    return torch.nn.functional.normalize(adapters[modality](latents), dim=1)


def recall(pairs: PairedLatents, adapters: Any, k: int = 10) -> float:
    """Recall at 10 in percent, the mean of both directions."""
    molecules, texts = (embedded(pairs, adapters, m) for m in ("molecule", "text"))
    scores = molecules @ texts.T
    own = scores.diagonal()
    ranks = [(scores > own[:, None]).sum(dim=1), (scores > own[None]).sum(dim=0)]
    return 100 * float(torch.stack([(rank < k).float().mean() for rank in ranks]).mean())


def auroc(parts: dict[str, PairedLatents], flags: dict[str, np.ndarray], adapters: Any) -> float:
    """The mean AUROC in percent of predicting from molecules which entities their texts mention, by
    ridge regression on the training pairs' embeddings, or on latents."""
    often = (flags["train"].sum(axis=0) >= 3) & (flags["test"].sum(axis=0) >= 3)
    rows = {split: _labelled(parts[split], flags[split][:, often], adapters) for split in parts}
    task, train = rows["train"]
    fuser = registry.target_of(registry.check("fuser", Part("block")))
    made = fuser.fit(train, rows["validation"][1], task, FitContext()).fuser
    test = rows["test"][1]
    with torch.no_grad():
        scores = made({"molecule": test.latents("molecule")}, test.present)
    return 100 * task.score(scores, test.targets)


def _labelled(
    pairs: PairedLatents, flags: np.ndarray, adapters: Any
) -> tuple[Multilabel, Labelled]:
    only = pairs.only(["molecule"])
    if adapters is not None:
        table = ResidentLatents(embedded(pairs, adapters, "molecule"))
        only = PairedLatents({"molecule": table}, torch.arange(len(pairs))[:, None])
    facts = {str(k): Fact("number", column.astype(np.float32)) for k, column in enumerate(flags.T)}
    task = Multilabel(labels=list(facts), positive=["1"] * len(facts))
    return task, Labelled(only, task.targets(facts), torch.arange(len(pairs)))


if __name__ == "__main__":
    main()
