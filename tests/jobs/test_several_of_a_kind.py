"""Several columns of one medium are several modalities: `image:front`, `image:back`."""

import csv

import pytest
import torch
from pairs import write_world
from toys import ToyImage, ToyText

import fusemix_core
from fusemix_core.config import DataConfig
from fusemix_core.data.reading import pairs_from, read_pairs
from fusemix_core.errors import ConfigError
from fusemix_core.jobs.evaluate import evaluate
from fusemix_core.jobs.search import Gallery, query_modality
from fusemix_core.registry import registry

ENCODERS = {"image:front": ToyImage, "image:back": ToyImage, "text": ToyText}
TAKES = {"image:front": "image", "image:back": "image", "text": "text"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A table with two images a row, in columns of any name."""
    folder = tmp_path_factory.mktemp("several")
    with open(write_world(folder)) as file:
        rows = list(csv.DictReader(file))
    with open(folder / "rows.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["front_path", "rear", "text"])
        for i, row in enumerate(rows):
            back = rows[(i + 8) % len(rows)]["image"]
            writer.writerow([row["image"], "" if i % 7 == 0 else back, row["text"]])
    return folder / "rows.csv"


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    data = {"source": [str(world)], "columns": {"image:back": "rear"}}
    return fusemix_core.align(
        ENCODERS, data, out=tmp_path_factory.mktemp("run"), recipe="cca", device="cpu"
    )


def test_a_column_is_found_by_the_name_after_the_colon(world):
    config = DataConfig((str(world),), columns={"image:back": "rear"})
    assert read_pairs(config, TAKES).columns["image:front"] == ["front_path"]
    guessed = read_pairs(DataConfig((str(world),)), TAKES)
    assert guessed.columns["image:back"] == ["rear"]
    assert any(
        "image:back is read from column 'rear', which names files" in w for w in guessed.warnings
    )


def test_it_has_the_medium_and_habits_of_its_kind():
    assert registry.modality("image:front") == registry.modality("image")
    assert registry.modality("nothing:front") is None
    found = pairs_from(
        {"text:title": ["a", "b"], "text:body": ["c", None]},
        dict.fromkeys(["text:title", "text:body"], "text"),
        least=1,
    )
    assert found.links.tolist() == [[0, 0], [1, -1]]


def test_a_run_saves_a_model_that_loads_embeds_and_is_measured(run, world):
    front, text = str(world.parent / "3.png"), "a white car number 3"
    model = fusemix_core.FusedModel.from_pretrained(run.folder.model, device="cpu")
    assert model.modalities == ("image:front", "image:back", "text")
    for modality, item in (("image:front", front), ("image:back", front), ("text", text)):
        assert torch.equal(model.encode(modality, [item]), run.model.encode(modality, [item]))
    scores = model.similarity(
        model.encode("text", [text]), model.encode("image:front", [front]), "text", "image:front"
    )
    assert scores.shape == (1, 1)
    directions = run.results["test"]["retrieval"]["directions"]
    assert {"image:front->text", "text->image:back", "image:front->image:back"} <= set(directions)
    found = evaluate(run.model, {"source": [str(world)], "columns": {"image:back": "rear"}})
    assert found["retrieval"]["directions"].keys() == directions.keys()
    card = (run.folder.model / "README.md").read_text()
    assert "model.encode('image:front'" in card
    assert "image:front" in run.folder.report.read_text()


def test_a_search_says_which_of_a_kind_is_asked(run, world):
    config = DataConfig((str(world),), columns={"image:back": "rear"}, missing="ok")
    gallery = Gallery(run.model, "image:back", config)
    hit = gallery.search("a red car number 0", "text", 1)[0]
    assert hit.item.endswith(".png")
    with pytest.raises(ConfigError) as error:
        query_modality(run.model, str(world.parent / "3.png"), None)
    assert "--from" in error.value.hint


@pytest.mark.parametrize("name", ["image:", ":front", "image:a:b", "image:a.b", "image:a/b"])
def test_a_name_that_a_tensor_can_t_have_is_refused(run, name):
    info = run.model.encoders["text"]
    with pytest.raises(ConfigError, match="can't be a modality"):
        fusemix_core.FusedModel(
            {name: run.model.adapters["text"], "text": run.model.adapters["text"]},
            {name: info, "text": info},
            run.model.scorer,
        )
