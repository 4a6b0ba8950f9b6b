"""Pairs to choose settings on, and texts of the same images: one each, or two."""

import json
from pathlib import Path

import numpy as np
import torch
from pairs import write_world

from benchmarks.captions import FirstText, figures, rows_of
from benchmarks.pool import pool
from fusemix_core.benchmark.config import bench_config
from fusemix_core.benchmark.latents import read_set
from fusemix_core.interfaces import FitContext, PairedLatents

TOYS = Path(__file__).parents[1] / "toys.py"


def test_no_seed_is_tested_on_a_pair_that_settings_are_chosen_on(tmp_path):
    source = write_world(tmp_path / "world", 120)
    table = {
        "source": str(source),
        "columns": {"image": "image", "text": "text"},
        "encoders": {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"},
    }
    config = bench_config({"methods": ["cca"], "seeds": 3, "sets": {"world": table}})
    (paired,) = config.sets
    rows = list(pool(config, paired))
    splits = [read_set(paired, config.combinations(paired)[0], seed) for seed in range(3)]

    def texts(dataset, split):
        column = dataset.modalities.index("text")
        return {dataset.items["text"].describe(dataset.links[r, column]) for r in split}

    tested = [texts(one, one.splits["test"]) for one in splits]
    by_split = {n: {r["text"] for r in rows if r["split"] == n} for n in splits[0].splits}
    assert by_split["test"] == tested[0]
    for name in ("train", "validation"):
        own = texts(splits[0], splits[0].splits[name])
        assert by_split[name] == own - tested[1] - tested[2] != own
    assert all((tmp_path / "world" / r["image"]).is_file() for r in rows)


def test_only_training_rows_have_the_second_text(tmp_path):
    found = [
        {"image": "a.png", "alt": "a", "caption": "A"},
        {"image": "b.png", "alt": "b", "caption": "b "},  # the same
        {"image": "c.png", "alt": "c", "caption": None},
        {"image": "d.png", "alt": "d", "caption": "D"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    rows = figures(tmp_path / "m.jsonl")
    assert [row["image"] for row in rows] == [str(tmp_path / n) for n in ("a.png", "d.png")]
    texts = list(rows_of(rows, {"train": np.array([1]), "test": np.array([0])}))
    assert [(t["text"], t["split"]) for t in texts] == [
        ("d", "train"),
        ("D", "train"),
        ("a", "test"),
    ]


def test_the_first_text_of_each_image_is_taken():
    links = torch.tensor([[4, 0], [4, 1], [2, 2], [2, 3], [7, 4]])
    pairs = PairedLatents(dict.fromkeys(("image", "text")), links)
    assert FirstText().select(pairs, 3, FitContext()).tolist() == [0, 2, 4]
    assert FirstText().select(pairs, 2, FitContext()).tolist() == [0, 2]
