"""Nothing leaves the machine, and a model can be made that contains no vector of an item."""

from __future__ import annotations

import csv
import os
import shutil

import fusemix_starter
import pytest
import started
from safetensors.torch import load_file

from fusemix_core import FusedModel

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


def test_no_connection_is_opened_with_packaged_weights(folder):
    assert "connections: 0" in (folder / "printed.txt").read_text()


def test_a_linear_model_scored_by_cosine_holds_no_vector_of_an_item(folder):
    model = FusedModel.from_pretrained(folder / "run/model")
    model.seen = {}
    model.save_pretrained(folder / "shared")
    tensors = load_file(folder / "shared/model.safetensors")
    sizes = {modality: info.dim for modality, info in model.encoders.items()}
    assert tensors and all(name.startswith("adapter.") for name in tensors)
    rows = {n: t.shape for n, t in tensors.items() if t.ndim == 2 and len(t)}
    assert all(sizes[name.split(".")[1]] in shape for name, shape in rows.items()), rows
    assert len(rows) == len(sizes)  # one map per modality, and nothing with a row per item
    for file in ("config.json", "README.md"):
        text = (folder / "shared" / file).read_text()
        assert str(folder) not in text and "pairs.csv" not in text
    assert "training items" not in (folder / "shared/README.md").read_text()
