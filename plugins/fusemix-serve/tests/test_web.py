"""The export `web`: what is in the folder, what it refuses, and its arithmetic."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import torch
from fusemix_serve.web import exporter as site
from fusemix_serve.web import runtime
from fusemix_serve.web.collecting import coded, write_parts
from fusemix_serve.web.scores import added, probe, shift, slope
from fusemix_serve.web.words import halved
from torch.nn.functional import normalize

from fusemix_core.config import DataConfig, Part
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Network, Scorer
from fusemix_core.jobs.export import export
from fusemix_core.latents import exported
from fusemix_core.runs.reporter import Reporter
from fusemix_core.scorers.cosine import CosineScorer
from fusemix_core.scorers.csls import CSLSScorer
from fusemix_core.search import Collection

ASKS = ("image", "text", "audio")


class Notes(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


def rows(count, seed, dim=12):
    drawn = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return normalize(drawn, dim=1)


def scorers():
    csls = CSLSScorer(neighbours=3)
    csls.fit({m: rows(40, i) for i, m in enumerate(ASKS)})
    return [CosineScorer(), csls]


@pytest.mark.parametrize("scorer", scorers(), ids=["cosine", "csls"])
def test_slope_and_shift_give_the_scores_of_lifted_products(scorer):
    queries, items = rows(6, 5), rows(9, 6)
    for query, target in (("text", "image"), ("audio", "image"), ("image", "image")):
        found = slope(scorer, query, target, ASKS, 12)
        left = scorer.lift(queries, query, list(ASKS), gallery=False)
        assert left[:, 12:].tolist() == [added(scorer, query, ASKS, 12)] * 6
        products = left @ scorer.lift(items, target, list(ASKS), gallery=True).T
        shifts = shift(scorer, queries, query, target, ASKS, found, probe(12))
        scores = scorer.score(queries, items, query, target)
        torch.testing.assert_close(found * products + shifts[:, None], scores, atol=1e-5, rtol=0)


class Cubed(Scorer):
    """Ranks as the cosine does, along no line."""

    def score(self, queries, gallery, query, target):
        return (queries @ gallery.T) ** 3

    def lift(self, rows, modality, against, gallery):
        return rows


def test_a_scorer_that_is_no_line_is_refused():
    with pytest.raises(ConfigError, match="can't compute this model's scores"):
        slope(Cubed(), "text", "image", ASKS, 12)


@pytest.mark.parametrize(("dtype", "error"), [("int16", 2e-5), ("int8", 5e-3)])
def test_codes_are_as_near_as_their_width_allows(dtype, error):
    values = rows(50, 0, 384).numpy()
    values[3] = 0
    codes, scales = coded(values, dtype)
    assert codes.dtype == np.dtype(dtype) and scales.dtype == np.float32
    np.testing.assert_allclose(codes * scales[:, None], values, atol=error)


def test_large_files_are_written_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("fusemix_serve.web.collecting.PART", 10)
    assert write_parts(tmp_path / "a", bytes(range(25))) == 25
    assert write_parts(tmp_path / "b", b"") == 0
    parts = [(tmp_path / f"a.{i}").read_bytes() for i in range(3)]
    assert [len(part) for part in parts] == [10, 10, 5] and b"".join(parts) == bytes(range(25))
    assert (tmp_path / "b.0").read_bytes() == b""


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.large, self.small = torch.nn.Linear(80, 64), torch.nn.Linear(64, 3)

    def forward(self, x):
        return self.small(torch.tanh(self.large(x)))


def test_halved_weights_are_cast_back_to_float32(tmp_path):
    import onnx
    import onnxruntime

    torch.manual_seed(0)
    module, x = Layer().eval(), torch.randn(5, 80)
    whole = exported.exported(Network(module, (0,)), {"x": x}, ("y",))
    half = halved(whole)
    onnx.checker.check_model(onnx.load_from_string(half))
    kinds = {w.name: w.data_type for w in onnx.load_from_string(half).graph.initializer}
    halves = [n for n, kind in kinds.items() if kind == onnx.TensorProto.FLOAT16]
    assert len(halves) == 1 and len(half) < 0.65 * len(whole)
    session = onnxruntime.InferenceSession(half)
    (found,) = session.run(None, {"x": x.numpy()})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=1e-3)


# -- the folder ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(models, index, tmp_path_factory):
    """(the folder of an export without words, what was said, the collection)."""
    collection = Collection.open(index, models["photos"])
    reporter, folder = Notes(), tmp_path_factory.mktemp("web") / "site"
    part = Part("web", {"words": False, "name": "Photos"})
    return folder, export(collection, part, folder, reporter=reporter), collection


def test_the_folder_has_the_page_and_all_items(written):
    folder, lines, collection = written
    info = json.loads((folder / "data/info.json").read_text())
    items = json.loads((folder / "data/items.json").read_text())
    view = collection.overview()
    assert info["format"] == "fusemix-web-1" and info["name"] == "Photos"
    assert items["key"] == view.keys and info["count"] == len(collection)
    assert sum(info["items"].values()) == len(collection) and info["query"] == []
    assert items["columns"].keys() == collection.columns.keys()
    assert items["columns"]["thing"] == view.values("thing")
    points = np.frombuffer((folder / "data/map.0").read_bytes(), "<f4").reshape(-1, 2)
    np.testing.assert_array_equal(points, view.points)
    codes = np.frombuffer((folder / "data/codes.0").read_bytes(), "<i2").reshape(-1, info["dim"])
    scales = np.frombuffer((folder / "data/scales.0").read_bytes(), "<f4")
    own = collection.vectors(view.keys).numpy()
    np.testing.assert_allclose(codes * scales[:, None], own, atol=1e-4)
    thumbs = [name for name in items["thumb"] if name]
    assert len(thumbs) == view.values("modality").count("image")
    assert all((folder / "data" / name).stat().st_size for name in thumbs)
    assert not any(items["media"]) and not (folder / "static/runtime").exists()
    assert "http.server" in lines[-1] and str(folder) in lines[-1]


def test_the_page_has_a_policy_and_asks_no_server(written):
    folder = written[0]
    html = (folder / "index.html").read_text()
    assert "Content-Security-Policy" in html and "script-src 'self'" in html
    own = (folder / "static/js/api.js").read_text()
    assert "fetch(" not in own and "gallery.js" in own
    assert (folder / "static/js/app.js").is_file() and not (folder / "static/index.html").exists()


def test_no_path_of_this_machine_is_in_the_folder(written, world):
    for path in written[0].rglob("*"):
        if path.is_file():
            assert str(world).encode() not in path.read_bytes(), path


def test_media_are_copied_if_asked_for(models, index, tmp_path):
    collection = Collection.open(index, models["photos"])
    export(collection, Part("web", {"words": False, "media": True}), tmp_path / "site")
    items = json.loads((tmp_path / "site/data/items.json").read_text())
    at = next(i for i, name in enumerate(items["media"]) if name)
    copied = (tmp_path / "site/data" / items["media"][at]).read_bytes()
    assert copied == collection.media(items["key"][at]).read_bytes()


def test_of_a_run_and_data_an_index_is_built_and_thrown_away(models, world, tmp_path):
    data = DataConfig(source=(str(world / "data" / "pairs.csv"),))
    export(models["photos"], Part("web", {"words": False}), tmp_path / "site", data=data)
    assert json.loads((tmp_path / "site/data/info.json").read_text())["count"] > 64
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_an_encoder_that_no_browser_can_run_is_reported(models, index, tmp_path, monkeypatch):
    monkeypatch.setattr(site.runtime, "archives", lambda _: [])
    reporter = Notes()
    lines = export(
        Collection.open(index, models["photos"]), "web", tmp_path / "site", reporter=reporter
    )
    assert any("can't search by text" in note and "network" in note for note in reporter.notes)
    info = json.loads((tmp_path / "site/data/info.json").read_text())
    assert info["query"] == [] and "More like this" in info["note"]
    assert "not by words" in lines[0] and not (tmp_path / "site/data/text").exists()


def test_what_can_not_be_is_refused(models, index, tmp_path, monkeypatch):
    collection = Collection.open(index, models["photos"])
    for options in ({"dtype": "int4"}, {"weights": "int8"}):
        with pytest.raises(ConfigError, match="can't have"):
            export(collection, Part("web", options), tmp_path / "site")
    monkeypatch.setattr(site, "_LARGEST", 100)
    with pytest.raises(ConfigError, match="too many for a browser") as refused:
        export(collection, Part("web", {"words": False}), tmp_path / "site")
    assert "dtype=int8" in refused.value.hint and not (tmp_path / "site").exists()


def test_a_missing_or_another_archive_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="is missing") as refused:
        runtime.archives(str(tmp_path))
    assert "npm pack onnxruntime-web@" in refused.value.hint and "words=false" in refused.value.hint
    with tarfile.open(tmp_path / runtime.PACKAGES[0].archive, "w:gz"):
        pass
    with pytest.raises(ConfigError, match="is not onnxruntime-web"):
        runtime.archives(str(tmp_path))
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no npm"):
        runtime.archives()
