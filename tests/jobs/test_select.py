"""`fusemix select`: the manifest that it writes is read again as the pairs that were chosen."""

import csv
import json
from pathlib import Path

import pytest
import torch
from pairs import write_world
from refused import refused
from toys import ToyImage, ToyText
from typer.testing import CliRunner

from fusemix_core import align, encode, select
from fusemix_core.cli.app import app
from fusemix_core.config import DataConfig
from fusemix_core.data.reading import read_pairs
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.selectors.dpp import dpp_of_latents
from fusemix_core.selectors.uniform import uniform_subset

TOYS = Path(__file__).parents[1] / "toys.py"
BY_NAME = ["--a", f"{TOYS}:ToyImage", "--b", f"{TOYS}:ToyText"]
ENCODERS = {"image": ToyImage, "text": ToyText}
TAKES = {"image": "image", "text": "text"}


@pytest.fixture
def data(tmp_path):
    return write_world(tmp_path / "w", count=60)


def read(path, **how):
    return read_pairs(DataConfig(source=(str(path),), **how), TAKES)


def pairs_in(dataset, rows=None):
    """(path of the image, text) of rows, in their order."""
    links = dataset.links if rows is None else dataset.links[rows]
    image, text = dataset.items["image"], dataset.items["text"]
    return [(str(image.references[i]), text.references[j]) for i, j in links.tolist()]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("place", ["w", ".", "w/below"])
def test_what_is_written_is_what_was_chosen(place, suffix, data, tmp_path):
    (tmp_path / place).mkdir(exist_ok=True)
    out = tmp_path / place / f"few.{suffix}"
    done = select(ENCODERS, data, 12, overrides=["selector.by=text"], out=out, device="cpu")
    table = encode({"text": ToyText}, data, device="cpu").tables["text"]
    wanted = dpp_of_latents(table.rows(torch.arange(60)), 12).tolist()
    assert done.rows.tolist() == wanted
    assert done.outside == (place == "w/below")
    again = read(out, allow_outside=done.outside)
    assert pairs_in(again) == pairs_in(done.dataset, done.rows)
    assert not again.rejected


def test_other_columns_stay_and_a_fit_reads_it(data, tmp_path):
    out = tmp_path / "w/few.csv"
    select(ENCODERS, data, 40, "uniform", out=out, seed=4)
    rows = list(csv.DictReader(out.open()))
    chosen = uniform_subset(60, 40, 4).tolist()
    assert [row["thing"] for row in rows] == [
        row["thing"] for row in (list(csv.DictReader(data.open()))[i] for i in chosen)
    ]
    assert rows[0]["image"] == f"{chosen[0]}.png"
    read(out, group_by="thing")
    done = align(ENCODERS, out, out=tmp_path / "r", device="cpu")
    assert sum(done.results["pairs"].values()) == 40


def test_uniform_encodes_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setattr(ToyImage, "encode", lambda *a: 1 / 0)
    monkeypatch.setattr(ToyText, "encode", lambda *a: 1 / 0)
    assert len(select(ENCODERS, data, 7, "uniform").rows) == 7


def test_only_the_modality_that_is_compared_is_encoded(data, monkeypatch):
    monkeypatch.setattr(ToyText, "encode", lambda *a: 1 / 0)
    monkeypatch.setenv("FUSEMIX_HOME", str(data.parent / "home"))
    assert len(select(ENCODERS, data, 7).rows) == 7
    with pytest.raises(ZeroDivisionError):
        select(ENCODERS, data, 7, overrides=["selector.by=text"])


def test_validation_and_test_rows_are_kept_and_none_is_chosen_of_them(data, tmp_path):
    rows = list(csv.DictReader(data.open()))
    parts = ["train"] * 40 + ["val"] * 8 + ["test"] * 12
    with data.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "part"])
        writer.writeheader()
        writer.writerows([{**r, "part": p} for r, p in zip(rows, parts, strict=True)])
    out = data.parent / "few.jsonl"
    table = {"source": str(data), "split_column": "part"}
    done = select(ENCODERS, table, 15, out=out)
    assert len(done.rows) == 15 and done.rows.max() < 40
    before, after = read(data, split_column="part"), read(out, split_column="part")
    for name in ("validation", "test"):
        assert pairs_in(after, after.splits[name]) == pairs_in(before, before.splits[name])
    assert pairs_in(after, after.splits["train"]) == pairs_in(done.dataset, done.rows)


def test_of_several_captions_those_that_were_chosen(tmp_path):
    data = write_world(tmp_path / "w", count=20)
    lines = [
        {"file": f"{i}.png", "caption": [f"one {i}", f"two {i}"], "note": "kept"} for i in range(20)
    ]
    manifest = data.parent / "captions.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    table = {"source": str(manifest), "columns": {"image": "file", "text": "caption"}}
    out = data.parent / "few.jsonl"
    done = select(ENCODERS, table, 9, "uniform", out=out)
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [set(line) for line in written] == [{"image", "text", "note"}] * 9
    assert pairs_in(read(out)) == pairs_in(done.dataset, done.rows)


def test_what_lies_in_an_archive_can_not_be_named(tmp_path):
    import io
    import tarfile

    data = write_world(tmp_path / "w", count=20)
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for i in range(20):
            for name, content in (
                (f"{i}.png", (data.parent / f"{i}.png").read_bytes()),
                (f"{i}.txt", f"a text {i}".encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    with pytest.raises(DataError, match="not a file of its own") as caught:
        select(ENCODERS, tmp_path / "shard.tar", 5, out=tmp_path / "few.csv")
    assert "--select" in caught.value.hint and not (tmp_path / "few.csv").exists()
    assert len(select(ENCODERS, tmp_path / "shard.tar", 5).rows) == 5


WRONG = [
    (["--out", "few.csv"], "how many pairs"),
    (["--pairs", "5"], "where to write"),
    (["--pairs", "5", "--out", "few.png"], "not a manifest"),
    (["--pairs", "5", "--out", "none/few.csv"], "does not exist"),
    (["--pairs", "5", "--out", "few.csv", "--selector", "dppp"], "Did you mean 'dpp'"),
    (["--pairs", "5", "--out", "few.csv", "--by", "sound"], "sound"),
    (["--pairs", "5", "--out", "few.csv", "--set", "dim=3"], "not a setting of a selector"),
    (["--pairs", "61", "--out", "few.csv"], "61 of 60"),
    (["--pairs", "5", "--out", "few.csv", "--selector", "uniform", "--by", "text"], "by"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    data = write_world(tmp_path_factory.mktemp("wrong") / "w", count=60)
    args = ["select", "--a", "efficientnet-lite0", "--b", "minilm", "--data", data]
    return refused(args, [options for options, _ in WRONG])


@pytest.mark.parametrize(("options", "said"), WRONG)
def test_what_is_wrong_is_said_before_torch_is_imported(options, said, outcomes):
    outcomes[tuple(options)].check(said)


def test_the_command_line(data, tmp_path):
    out = data.parent / "few.csv"
    args = ["select", *BY_NAME, "--data", str(data), "--pairs", "9", "--out", str(out)]
    plan = CliRunner().invoke(app, [*args, "--by", "text", "--dry-run", "--json"])
    assert [e["modality"] for e in json.loads(plan.stdout)] == ["text"] and not out.exists()
    done = CliRunner().invoke(app, [*args, "--by", "text", "--json"])
    found = json.loads(done.stdout)
    assert found.pop("rows")["used"] == 60 and {"columns", "warnings"} <= found.keys()
    told = {key: found[key] for key in ("chosen", "of", "out", "outside")}
    assert told == {"chosen": 9, "of": 60, "out": str(out), "outside": False}
    again = CliRunner().invoke(app, args)
    assert again.exit_code == 2 and "there already" in again.output
    (data.parent / "below").mkdir()
    shown = CliRunner().invoke(app, [*args[:-1], str(data.parent / "below/few.csv")])
    assert "--allow-outside" in shown.output and "9 of 60 pairs" in shown.output


def test_a_manifest_is_not_overwritten(data):
    with pytest.raises(ConfigError, match="there already"):
        select(ENCODERS, data, 5, out=data)
