"""A text query by MiniLM in a process that has just started: no torch, and the model's hits."""

import csv
import json
import os
import subprocess
import sys

import pytest
from fusemix_starter import sample_path
from loaded import shallow_encoders

from fusemix_core.config import DataConfig
from fusemix_core.runs.models import load_model
from fusemix_core.search import Collection

for package in ("openvino", "onnxscript", "tokenizers"):
    pytest.importorskip(package)

CODE = """
import atexit, sys
heavy = ("torch", "transformers", "sentence_transformers", "timm", "pyarrow", "PIL")
atexit.register(lambda: print([m for m in heavy if m in sys.modules], file=sys.stderr))
from fusemix_core.cli import main
main()
"""


QUERIES = ("Größe der Zelle 🙂", "a map of Europe", "people at work " * 200)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.long)])
def test_minilm_answers_without_torch_as_the_model_does(tmp_path, monkeypatch, shared_home, whole):
    """With two layers of MiniLM one query has a process of its own; with all, each has."""
    if whole:
        monkeypatch.setenv("FUSEMIX_HOME", shared_home)
    else:
        shallow_encoders(monkeypatch)
    table = tmp_path / "captions.csv"
    with open(sample_path(), newline="") as file, open(table, "w", newline="") as out:
        rows = list(csv.DictReader(file))[::40]
        writer = csv.DictWriter(out, ["text", "book"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    model = load_model("starter:figures", "cpu")
    made = Collection.create(tmp_path / "i", model, DataConfig((str(table),)), ["text"])
    assert made.info()["quick"] == {"text": ""}
    quick = Collection.open(tmp_path / "i")
    for query in QUERIES:
        expected = made.ask("text", query, target="text")
        alike(map(vars, quick.ask("text", query, target="text")), expected)
        if whole or query is QUERIES[0]:
            words = ("search", made.folder, query, "--json", "--to", "text", "--from", "text")
            done = subprocess.run(
                [sys.executable, "-c", CODE, *map(str, words)],
                capture_output=True, text=True, env=os.environ,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (0, "[]\n")
            alike(json.loads(done.stdout), expected)


def alike(found, expected):
    found = [*found]
    assert [one["key"] for one in found] == [one.key for one in expected]
    scores = [one.score for one in expected]
    assert [one["score"] for one in found] == pytest.approx(scores, abs=1e-4)
