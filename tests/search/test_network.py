"""Query networks: texts answered without the encoder and without torch, as the model answers."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pairs import write_world
from search.conftest import TOYS, Heard, data_of
from search.tokens import MOST
from torch.nn.functional import normalize

from fusemix_core.errors import ArtefactError, ConfigError, DataError
from fusemix_core.jobs.align import align
from fusemix_core.latents import exported, runtime
from fusemix_core.runs.models import load_model
from fusemix_core.scorers.cosine import CosineScorer
from fusemix_core.search import Collection, exporting, state
from fusemix_core.search.exporting import CantExportError
from fusemix_core.search.network import QueryNetwork

pytest.importorskip("openvino")
pytest.importorskip("onnxscript")
pytest.importorskip("tokenizers")

pytestmark = pytest.mark.slow
TOKENS = Path(__file__).parent / "tokens.py"
ENCODERS = {"image": f"{TOYS}:ToyImage", "text": f"{TOKENS}:TokenText"}
TEXTS = ("a red car", "A Map of the 7 blue doors", "größe 🙂", "the word " * MOST)


@pytest.fixture(autouse=True, scope="module")
def exported_once():
    """The encoder and the head are the same in all tests: each is exported once, in seconds."""
    made, real = {}, exported.exported

    def once(network, inputs):
        name = type(network.module).__name__
        if name not in made:
            made[name] = real(network, inputs)
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported, "exported", once)
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with the world `world`, its run `run` and the collection `i` of it."""
    folder = tmp_path_factory.mktemp("network")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(folder / "home"))
        table = write_world(folder / "world", 96)
        align(ENCODERS, str(table), recipe="kcca", out=folder / "run")
        model = load_model(folder / "run", "cpu", ENCODERS)
        Collection.create(folder / "i", model, data_of(table))
    return folder


@pytest.fixture(scope="module")
def model(first):
    return load_model(first / "run", "cpu", ENCODERS)


@pytest.fixture
def folder(first, tmp_path):
    """A copy of the collection, to change."""
    return Path(shutil.copytree(first / "i", tmp_path / "i"))


@pytest.fixture
def absent(monkeypatch):
    """Has packages seem not to be installed: `absent("openvino")`."""
    real = runtime.absent

    def lacking(*gone):
        for place in (runtime, state, sys.modules["fusemix_core.search.collection"]):
            monkeypatch.setattr(
                place, "absent", lambda *names: next((n for n in names if n in gone), real(*names))
            )

    return lacking


def without_model(monkeypatch):
    def loaded(*_):
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("fusemix_core.runs.models.load_model", loaded)


def alike(found, expected):
    assert [one.key for one in found] == [one.key for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        assert one.percentile == pytest.approx(other.percentile, abs=0.5)
        assert (one.item, one.columns) == (other.item, other.columns)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_finds_what_it_finds_by_the_model(first, model, monkeypatch, text):
    usual = Collection.open(first / "i", model)
    vector = usual.encode("text", text)
    excluded = [usual.search(vector, "text", 1)[0].key]
    asked = [
        {"count": 20},
        {"count": 5, "offset": 7, "exclude": excluded},
        {"count": 8, "where": "thing in ('boat', 'cup')"},
        {"count": 8, "target": "text"},
    ]
    expected = [usual.search(vector, "text", **more) for more in asked]
    without_model(monkeypatch)
    quick = Collection.open(first / "i")
    for more, wanted in zip(asked, expected, strict=True):
        alike(quick.ask("text", text, **more), wanted)


def test_a_search_imports_neither_torch_nor_the_encoder(first, model):
    code = (
        "import atexit, sys\n"
        "heavy = ('torch', 'transformers', 'sentence_transformers', 'pyarrow', 'search.tokens')\n"
        "atexit.register(lambda: print([m for m in heavy if m in sys.modules], file=sys.stderr))\n"
        "from fusemix_core.cli import main\n"
        "main()\n"
    )
    words = ("search", first / "i", "a red car", "--json", "-k", 12, "--where", "thing != 'door'")
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True,
        env={**os.environ, "FUSEMIX_PLUGINS": "none"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]\n"
    found = json.loads(done.stdout)
    usual = Collection.open(first / "i", model)
    expected = usual.ask("text", "a red car", 12, where="thing != 'door'")
    assert [one["key"] for one in found] == [one.key for one in expected]
    assert [one["score"] for one in found] == pytest.approx(
        [one.score for one in expected], abs=1e-4
    )


def test_refusals_are_those_of_a_search(first, monkeypatch):
    without_model(monkeypatch)
    quick = Collection.open(first / "i")
    with pytest.raises(DataError, match="empty text"):
        quick.ask("text", "  ")
    with pytest.raises(ConfigError, match="no column 'price'"):
        quick.ask("text", "a red car", where="price > 2")
    with pytest.raises(ConfigError, match="no items of 'audio'"):
        quick.ask("text", "a red car", target="audio")


def test_another_modality_is_asked_by_the_model(first, model):
    image = first / "world/3.png"
    opened = Collection.open(first / "i", model)
    expected = opened.search(opened.encode("image", image), "image", 5)
    assert opened.ask("image", image, 5) == expected


def test_a_flipped_byte_is_reported_and_an_update_makes_the_network_again(folder, model):
    (path,) = folder.glob("*.query")
    expected = Collection.open(folder).ask("text", "a red car")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ArtefactError, match="checksum") as error:
        Collection.open(folder).ask("text", "a red car")
    assert "fusemix index update" in error.value.hint
    assert any(str(path) in fault for fault in Collection.open(folder).check())
    Collection.open(folder, model).update()
    assert len(list(folder.glob("*.query"))) == 1 and not Collection.open(folder).check()
    alike(Collection.open(folder).ask("text", "a red car"), expected)


def test_an_update_keeps_a_network_and_removes_those_of_nothing(folder, model, monkeypatch):
    (path,) = folder.glob("*.query")
    (folder / f"{'0' * 32}.query").write_bytes(b"of a writer that was killed")

    def made(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(exporting, "_made", made)
    Collection.open(folder, model).update(Heard())
    assert list(folder.glob("*.query")) == [path]


def test_without_a_package_the_model_answers_and_info_says_so(folder, model, absent, monkeypatch):
    expected = Collection.open(folder, model).ask("text", "a red car")
    absent("openvino")
    slow = Collection.open(folder)
    assert slow.info()["quick"] == {"text": "the package openvino is not installed"}
    monkeypatch.setattr("fusemix_core.runs.models.load_model", lambda *_: model)
    assert slow.ask("text", "a red car") == expected


def test_a_runtime_that_refuses_the_network_leaves_the_query_to_the_model(
    folder, model, monkeypatch
):
    def refused(*_):
        raise RuntimeError("an operation of a later version")

    monkeypatch.setattr(QueryNetwork, "ask", refused)
    monkeypatch.setattr("fusemix_core.runs.models.load_model", lambda *_: model)
    expected = Collection.open(folder, model).ask("text", "a red car")
    assert Collection.open(folder).ask("text", "a red car") == expected


def without_network(folder):
    """The state of a collection as an earlier version left it."""
    known = state.State.read(folder)
    replace(known, networks={}).write(folder)


def test_a_package_that_comes_later_makes_the_next_update_make_it(
    folder, model, absent, monkeypatch
):
    without_network(folder)
    assert not list(folder.glob("*.query"))
    assert "index update" in Collection.open(folder).info()["quick"]["text"]
    absent("onnxscript")
    Collection.open(folder, model).update()
    assert "onnxscript" in Collection.open(folder).info()["quick"]["text"]
    absent()
    made = QueryNetwork({}, b"weights", b"model", b"tokenizer")
    monkeypatch.setattr(exporting._Making, "checked", lambda *_: made)
    Collection.open(folder, model).update()
    assert Collection.open(folder).info()["quick"] == {"text": ""}


@pytest.mark.parametrize(
    ("said", "largest", "why"),
    [
        ({}, 100, "larger than"),
        ({"max_tokens": 3}, exporting.LARGEST, "differ by"),
        ({"tokenizer": None}, exporting.LARGEST, "no tokenizer"),
    ],
)
def test_a_network_that_would_not_do_is_not_kept_and_not_tried_again(
    folder, model, monkeypatch, said, largest, why
):
    kind = type(model.encoder("text").load())
    real = kind.save_preprocessing
    monkeypatch.setattr(kind, "save_preprocessing", lambda self, at: {**real(self, at), **said})
    monkeypatch.setattr(exporting, "LARGEST", largest)
    without_network(folder)
    Collection.open(folder, model).update()
    found = Collection.open(folder).info()["quick"]["text"]
    assert why in found and not list(folder.glob("*.query"))
    monkeypatch.undo()
    monkeypatch.setattr(exporting, "_made", None)
    Collection.open(folder, model).update()
    assert Collection.open(folder).info()["quick"]["text"] == found


def test_an_encoder_that_cannot_be_loaded_stops_no_update_and_is_tried_again(
    folder, model, monkeypatch
):
    def lost():
        raise OSError("its weights are on another disk")

    without_network(folder)
    monkeypatch.setattr(model.encoder("text"), "load", lost)
    Collection.open(folder, model).update()
    assert "another disk" in Collection.open(folder).info()["quick"]["text"]
    monkeypatch.undo()
    monkeypatch.setattr(exporting, "_made", lambda *_: QueryNetwork({}, b"w", b"m", b"t"))
    Collection.open(folder, model).update()
    assert Collection.open(folder).info()["quick"] == {"text": ""}


def test_scores_that_are_no_line_in_the_products_are_refused():
    class Curved(CosineScorer):
        def score(self, queries, gallery, query, target):
            return super().score(queries, gallery, query, target).exp()

    with pytest.raises(CantExportError, match="Curved"):
        exporting._Line(Curved(), "text", "image", ["text"], 8)
    line = exporting._Line(CosineScorer(), "text", "image", ["text"], 8)
    rows = normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert line.slope == pytest.approx(1, abs=1e-5)
    assert line.offset(rows, rows).abs().max() < 1e-5
