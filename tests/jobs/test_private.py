"""Nothing leaves the machine, and a model can be made that contains no vector of an item."""

from __future__ import annotations

import csv
import json
import os
import shutil

import fusemix_starter
import pytest
import started
import torch
from pairs import write_world
from safetensors.torch import load_file
from toys import ToyImage, ToySound, ToyText

from fusemix_core import FusedModel, align, extend
from fusemix_core.errors import ConfigError, DivergedError
from fusemix_core.jobs.run import list_batch
from fusemix_core.runs.folder import RunFolder

CHILD = """
import sys

asked = []
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
sys.addaudithook(lambda event, args: asked.append((event, args)) if event in NETWORK else None)

from fusemix_core.cli import main

def call(*words):
    sys.argv = ["fusemix", *words]
    try:
        main()
    except SystemExit as done:
        assert not done.code, (words, done.code)

call("align", "--a", "efficientnet-lite0", "--b", "minilm", "--data", "pairs.csv", "--out", "run",
     "--recipe", "cca", "--set", "scorer=cosine")
call("search", "run", "--data", "pairs.csv", "--to", "image", "a map")
call("eval", "run", "--json")
assert not [one for one in asked if one[0] != "socket.connect" or "AF_UNIX" not in str(one)], asked
print("connections:", len(asked))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a run with packaged weights, in a process that may use the network."""
    folder = tmp_path_factory.mktemp("private")
    source = fusemix_starter.sample_path()
    with open(source, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:24]
    with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "text"])
        table.writerows([row["image"], row["text"]] for row in rows)
    for row in rows:
        (folder / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source.parent / row["image"], folder / row["image"])
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment["FUSEMIX_HOME"] = str(folder / "home")
    done = started.run("-c", CHILD, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "printed.txt").write_text(done.stdout)
    return folder


@pytest.mark.slow
def test_no_connection_is_opened_with_packaged_weights(folder):
    assert "connections: 0" in (folder / "printed.txt").read_text()


@pytest.mark.slow
def test_a_linear_model_scored_by_cosine_holds_no_vector_of_an_item(folder):
    model = FusedModel.from_pretrained(folder / "run/model")
    model.seen = {}
    model.save_pretrained(folder / "shared")
    tensors = load_file(folder / "shared/model.safetensors")
    sizes = {modality: info.dim for modality, info in model.encoders.items()}
    rotation = tensors.pop("rotation")  # of the space: orthogonal, of all items together
    assert rotation.shape == (model.dim, model.dim)
    assert tensors and all(name.startswith("adapter.") for name in tensors)
    rows = {n: t.shape for n, t in tensors.items() if t.ndim == 2 and len(t)}
    assert all(sizes[name.split(".")[1]] in shape for name, shape in rows.items()), rows
    assert len(rows) == len(sizes)  # one map per modality, and nothing with a row per item
    for file in ("config.json", "README.md"):
        text = (folder / "shared" / file).read_text()
        assert str(folder) not in text and "pairs.csv" not in text
    assert "training items" not in (folder / "shared/README.md").read_text()


TOYS = {"image": ToyImage, "text": ToyText}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Pairs, one of which has a text that is refused and a missing image."""
    world = write_world(tmp_path_factory.mktemp("world"), sounds=True)
    with open(world, "a") as file:
        file.write("secret-65.png,a secret text number 65,car,\n")
    return world


def data(world):
    columns = {"image": "image", "text": "text"}
    return {"source": str(world), "columns": columns, "max_bad": 0.1, "facts": {"kind": "thing"}}


@pytest.fixture(scope="module")
def private(world):
    """A private run of the default recipe, which would keep landmarks and a bank otherwise."""
    how = {"device": "cpu", "private": True, "pairs": 50, "evaluators": ["groups"]}
    return align(TOYS, data(world), out=world.parent / "private", **how)


def contents(folder):
    """The bytes of every file of a folder and below."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(items):
    """(modality, bytes) of every latent of the data, in both types that are ever written."""
    for modality, table in items.tables.items():
        for row in table.rows(torch.arange(len(table))).numpy():
            yield from ((modality, row.astype(kind).tobytes()) for kind in ("<f4", "<f2"))


def test_no_byte_of_a_private_run_is_of_an_item(private, world):
    with open(world, newline="") as file:
        cells = {row[c] for row in csv.DictReader(file) for c in ("image", "text", "audio")} - {""}
    found = contents(private.folder.path)
    assert len(found) >= 9 and not private.folder.checkpoints.exists()
    for path, content in found.items():
        held = [cell for cell in cells if cell.encode() in content]
        assert not held, (path, held)
        assert b"data:image" not in content and b"secret" not in content, path
        assert not [m for m, row in rows_of(private.encoded) if row in content], path
    tensors = load_file(private.folder.model / "model.safetensors")
    assert tensors.pop("rotation").shape == (private.model.dim,) * 2
    assert all(name.startswith("adapter.") for name in tensors)
    assert max(len(t) for t in tensors.values() if t.ndim) < 50, "a row for each training item"


def test_a_private_run_says_so(private):
    assert private.results["private"] and private.model.scorer_name == "cosine"
    card = (private.folder.model / "README.md").read_text()
    assert "no media or texts of the data, and no latents" in card
    assert "digest of each training item" not in card
    report = private.folder.report.read_text()
    assert "Private: this run contains no media" in report and "aligner.landmarks is 0" in report
    assert "What it finds" not in report and "not shown: the run is private" in report
    assert "sha256" not in private.folder.data.read_text()
    ranks = (private.folder.path / "test_ranks.csv").read_text()
    assert "row " in ranks and "pairs.csv" in ranks


def test_what_keeps_training_items_is_refused_before_anything_is_encoded(world, tmp_path):
    how = {"out": tmp_path / "r", "device": "cpu", "private": True}
    with pytest.raises(ConfigError, match="aligner.landmarks is 4096"):
        align(TOYS, data(world), recipe="kcca", **how)
    with pytest.raises(ConfigError, match="'asif'"):
        align(TOYS, data(world), recipe="asif", **how)
    with pytest.raises(ConfigError, match="'csls'"):
        align(TOYS, data(world), overrides=["scorer=csls"], **how)
    done = align(TOYS, data(world), recipe="kcca", out=tmp_path / "kernel", device="cpu")
    with pytest.raises(ConfigError, match="rows of training items"):
        extend(done.model, {"audio": ToySound}, {"source": str(world), "max_bad": 0.1}, **how)
    assert not (tmp_path / "r").exists()


def test_a_private_model_can_be_extended_in_private(private, world):
    source = {"source": str(world), "max_bad": 0.1}
    how = {"out": world.parent / "more", "device": "cpu", "private": True}
    done = extend(private.model, {"audio": ToySound}, source, **how)
    assert not done.model.seen and set(done.model.modalities) == {"image", "text", "audio"}
    assert not [p for p, c in contents(done.folder.path).items() if b" number " in c]


def test_a_batch_that_diverges_is_listed_by_its_rows_only(private, tmp_path):
    error, folder = DivergedError("no number", items={"text": [3]}), RunFolder(tmp_path)
    list_batch(error, private.encoded.dataset, folder, private=True)
    (line,) = json.loads(folder.failed_batch.read_text())
    assert line["row"] == 4 and "item" not in line
