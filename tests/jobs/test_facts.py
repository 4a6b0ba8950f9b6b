"""Facts from the data to those who use them: selectors, plans, results, and manifests."""

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pairs import write_world
from toys import ToyImage, ToyText

from fusemix_core import encode, select
from fusemix_core.config import DataConfig, Part, Recipe, RunConfig
from fusemix_core.data.reading import read_pairs
from fusemix_core.errors import DataError
from fusemix_core.interfaces import Evaluator, Selector
from fusemix_core.registry import registry
from fusemix_core.runs.encode import Encoding, encode_dataset
from fusemix_core.runs.evaluators import check_evaluators
from fusemix_core.runs.facts import unused_facts
from fusemix_core.runs.reporter import Reporter

ENCODERS = {"image": ToyImage, "text": ToyText}
TAKES = {"image": "image", "text": "text"}
FACTS = {
    "thing": "thing:class", "weight": "kg", "seen": "seen", "place": "place", "words": "text:text",
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    """pairs.parquet: 60 rows with further columns of every kind."""
    path = write_world(tmp_path / "w", count=60)
    rows = [
        {
            **row,
            "kg": None if i == 11 else i / 2,
            "seen": datetime(2024, 1, 1, i % 24, tzinfo=UTC),
            "place": [0, i, 1, i + 2],
            "sure": 0.0 if i % 10 == 0 else 0.5,
        }
        for i, row in enumerate(csv.DictReader(path.open()))
    ]
    pq.write_table(pa.Table.from_pylist(rows), path.parent / "pairs.parquet")
    return path.parent / "pairs.parquet"


def table(path, **more):
    return {"source": str(path), "facts": FACTS, "trust_column": "sure", **more}


def read(path, **more):
    given = table(path, **more)
    return read_pairs(DataConfig(**{**given, "source": (given["source"],)}), TAKES)


class Heaviest(Selector):
    """The pairs of the greatest `weight`."""

    def select(self, pairs, k, context):
        weight = torch.from_numpy(pairs.facts["weight"].values).nan_to_num(-1.0)
        assert len(weight) == len(pairs) and pairs.facts["trust"].values.min() > 0
        return weight.argsort(descending=True)[:k]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_a_selector_reads_facts_and_the_manifest_keeps_them(suffix, data):
    registry.add_component("selector", "heaviest", Heaviest)
    out = data.parent / f"few.{suffix}"
    chosen = select(ENCODERS, table(data), 12, "heaviest", out=out)
    weight = [i / 2 for i in range(59, -1, -1) if i % 10][:12]
    assert chosen.dataset.facts["weight"].values[chosen.rows].tolist() == weight
    again = read(out)
    assert not again.rejected and list(again.facts) == ["trust", *FACTS]
    for name, fact in again.facts.items():
        old = chosen.dataset.facts[name].select(chosen.rows)
        assert fact.kind == old.kind
        if old.names:
            assert [fact.names[i] for i in fact.values] == [old.names[i] for i in old.values]
        else:
            np.testing.assert_array_equal(fact.values, old.values)


def test_a_manifest_holds_no_column_that_is_two_things(data):
    given = table(data, columns={"text": "thing"}, facts={"words": "text"})
    with pytest.raises(DataError, match="'text' would hold both a fact and the modality text"):
        select(ENCODERS, given, 12, "uniform", out=data.parent / "few.csv")


def test_rows_of_a_single_item_reach_batches_with_their_facts(tmp_path):
    data = write_world(tmp_path / "w", count=30)
    rows = list(csv.DictReader(data.open()))
    lines = [
        {"image": row["image"] * (i % 3 != 0), "text": row["text"] * (i % 3 != 1), "n": i}
        for i, row in enumerate(rows)
    ]
    path = data.parent / "some.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    config = DataConfig((str(path),), facts={"n": "n"}, validation_fraction=0.3)
    dataset = read_pairs(config, TAKES, least=1)
    assert len(dataset) == 30 and not dataset.rejected
    specs = {m: e.spec for m, e in ENCODERS.items()}
    how = Encoding(torch.device("cpu"))
    encoded = encode_dataset(dataset, specs, how, Reporter(), max_bad=0.0)
    for split in ("train", "validation"):
        pairs = encoded.paired(split)
        batch = pairs.batch(torch.arange(len(pairs)))
        assert len(pairs)
        number = batch.facts["n"][:, 0].long()
        assert torch.equal(batch.present()[:, 0], number % 3 != 0)
        assert torch.equal(batch.present()[:, 1], number % 3 != 1)
        assert batch.latents["image"][number % 3 == 0].abs().max() == 0
        named = dataset.items["text"]
        for (_, text), n in zip(pairs.links.tolist(), number.tolist(), strict=True):
            assert text < 0 or named.describe(text) == rows[n]["text"]
    assert len(read_pairs(config, TAKES)) == 10


class ByFact(Evaluator):
    uses = ("facts",)

    def __call__(self, data):
        return {"facts": len(data.facts)}


def test_facts_that_an_evaluator_uses_are_not_noted(data):
    registry.add_component("evaluator", "by-fact", ByFact)
    config = RunConfig(
        {"image": "a", "text": "b"},
        DataConfig((str(data),), facts=FACTS),
        Recipe("mine", Part("cca"), objective=Part("infonce")),
    )
    assert "Nothing in the recipe mine uses facts (thing, weight" in unused_facts(config)[0]
    measured = replace(config, evaluators=(Part("by-fact"),))
    assert unused_facts(measured, check_evaluators(measured, read(data))) == []
    assert unused_facts(replace(config, data=replace(config.data, facts={}))) == []


def test_a_collection_has_no_trust_unless_it_is_named(tmp_path):
    path = tmp_path / "trusts.csv"
    path.write_text("text,trust\na red car,North\na blue house,0.5\n")
    assert len(encode({"text": ToyText}, path, device="cpu").dataset) == 2
    named = {"source": str(path), "trust_column": "trust", "max_bad": 1.0}
    found = encode({"text": ToyText}, named, device="cpu").dataset
    assert found.facts["trust"].values.tolist() == [0.5] and len(found.rejected) == 1
    facts = {"source": str(path), "facts": {"hospital": "trust:text"}}
    found = encode({"text": ToyText}, facts, device="cpu").dataset
    assert found.facts["hospital"].names == ("North", "0.5")
