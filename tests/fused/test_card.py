"""The model card."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex

import huggingface_hub
import pytest
import typer

from fusemix_core.cli.app import app
from fusemix_core.fused import FusedModel
from fusemix_core.saved.licences import strictest

METRICS = {
    "test": {
        "mean_r1": 14.25,
        "mean_r1_interval": [12.0, 16.5],
        "directions": {
            "image->text": {
                "queries": 100,
                "gallery": 90,
                "r1": 14.0,
                "r5": 36.2,
                "r10": 48.0,
                "r1_interval": [11.9, 16.1],
                "median_rank": 11.0,
                "map": 25.123456,
            }
        },
    }
}


@pytest.fixture
def card(toys, tmp_path):
    def make(modalities=("image", "text"), **more) -> str:
        toys.model(modalities, **more).save_pretrained(tmp_path / "model", name="me/model")
        return (tmp_path / "model" / "README.md").read_text(encoding="utf-8")

    return make


def test_front_matter_is_yaml_with_library_tags_and_licences(card):
    yaml = pytest.importorskip("yaml")
    text = card(("image", "text", "audio"))
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "fusemix"
    assert {"fusemix", "image", "text", "audio"} <= set(front["tags"])
    assert front["encoder_licences"] == {"image": "MIT", "text": "MIT", "audio": "MIT"}
    assert front["license"] == "unknown"  # nobody has stated that of the data
    assert "- data: not stated" in text and "not all of these are stated" in text


def test_the_hubs_own_parser_reads_what_was_measured_and_from_what(toys, tmp_path):
    infos = {
        "image": dataclasses.replace(
            toys.info("image"), weights="timm/x.in1k", licence="CC-BY-NC-4.0"
        ),
        "text": dataclasses.replace(toys.info("text"), weights="fcd/net.pt"),
    }
    model = FusedModel(
        {"image": toys.ToyAdapter(5, 4), "text": toys.ToyAdapter(7, 4)},
        infos,
        toys.csls(),
        metrics={"retrieval": METRICS["test"], "odd": {"rate": 0.5}},
        data={"licence": ["CC-BY-4.0", "MIT"], "datasets": ["me/pairs"], "split": "test"},
        registry=toys.registry,
        device="cpu",
    )
    model.save_pretrained(tmp_path / "model", name="me/model")
    card = huggingface_hub.ModelCard.load(tmp_path / "model" / "README.md")
    data = card.data
    assert data.pipeline_tag == "zero-shot-image-classification" and data.library_name == "fusemix"
    assert data.base_model == ["timm/x.in1k"] and data.base_model_relation == "adapter"
    assert data.datasets == ["me/pairs"] and data.license == "cc-by-nc-4.0"
    assert data.metrics == ["recall_at_1"] and data.model_name == "me/model"
    mean, directed = data.eval_results
    assert (mean.task_type, mean.dataset_type, mean.dataset_split) == (
        "retrieval",
        "me/pairs",
        "test",
    )
    assert (mean.metric_value, mean.metric_args) == (14.25, {"interval": [12.0, 16.5]})
    assert directed.metric_name == "recall_at_1 image->text"
    assert directed.metric_args == {"interval": [11.9, 16.1]}
    again = huggingface_hub.ModelCard(str(card))
    assert again.data.to_dict() == data.to_dict()


def test_terms_that_no_hub_has_a_name_for_are_the_strictest_and_named(toys, tmp_path):
    infos = {m: toys.info(m) for m in ("image", "text")}
    infos["image"] = dataclasses.replace(infos["image"], licence="DINOv3 License")
    model = FusedModel(
        {"image": toys.ToyAdapter(5, 4), "text": toys.ToyAdapter(7, 4)},
        infos,
        toys.csls(),
        data={"licence": "CC-BY-NC-4.0"},
        registry=toys.registry,
        device="cpu",
    )
    model.save_pretrained(tmp_path / "model")
    data = huggingface_hub.ModelCard.load(tmp_path / "model" / "README.md").data
    assert (data.license, data.license_name) == ("other", "dinov3-license")


@pytest.mark.parametrize(
    "stated, strict",
    [
        (["MIT", "Apache-2.0"], "apache-2.0"),
        (["CC-BY-NC-4.0", "GPL-3.0-only"], "cc-by-nc-4.0"),
        (["CC-BY-SA-4.0", "CC-BY-4.0"], "cc-by-sa-4.0"),
        (["MIT", "none: no weights"], "mit"),
        (["MIT", ""], "unknown"),
        (["the provider's terms", "CC-BY-NC-ND-4.0"], "other"),
        (["none: no weights"], "unknown"),
    ],
)
def test_the_strictest_licence(stated, strict):
    assert strictest(stated) == strictest(stated[::-1]) == strict


def test_the_code_in_the_card_runs(card, toys, items, tmp_path, monkeypatch):
    text = card()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    items["image"][0].save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    load = FusedModel.from_pretrained
    monkeypatch.setattr(
        FusedModel,
        "from_pretrained",
        lambda name: load(tmp_path / "model", registry=toys.registry, device="cpu"),
    )
    names: dict = {}
    exec(compile(code, "card", "exec"), names)  # noqa: S102 - the card of this very test
    assert names["scores"].shape == (1, 1)


def test_encoders_that_must_be_given_stand_in_the_code(toys, tmp_path):
    infos = {
        "image": dataclasses.replace(toys.info("image"), name="timm:x", licence=""),
        "2-text": dataclasses.replace(toys.info("text"), modality="2-text"),
    }
    adapters = {"image": toys.ToyAdapter(5, 4), "2-text": toys.ToyAdapter(7, 4)}
    model = FusedModel(
        adapters, infos, toys.csls(("image", "2-text")), registry=toys.registry, device="cpu"
    )
    model.save_pretrained(tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    ast.parse(code)
    assert "encoders={'image': 'timm:x'}" in code
    assert "fusemix index model -e image=timm:x --data my_folder --out my.index" in text
    assert "not stated" in text and "contains embeddings of training items" in text


def test_metrics_stand_in_a_table_with_their_intervals(card):
    text = card(metrics=METRICS, data={"pairs": 5468, "source": "open|stax"})
    row = "| image-\\>text | 100 | 90 | 14 (11.9–16.1) | 36.2 | 48 | 11 | 25.12 |"
    assert row in text
    assert "- test.mean\\_r1: 14.25 (12–16.5)" in text
    assert "- pairs: 5468" in text and "open\\|stax" in text
    assert "No evaluation was recorded" in card()


def test_the_card_says_what_was_fitted_and_what_it_cannot_do(card):
    text = card(
        recipe={"name": "fusemix", "training": {"epochs": 8}}, objective={"temperature": 0.1}
    )
    for part in (
        "`fusemix`",
        "training.epochs: 8",
        "temperature: 0.1",
        "## Limitations",
        "toy-image",
    ):
        assert part in text


def test_metrics_of_any_evaluator_are_tables_and_lists_under_their_own_names(card):
    many = {f"class {i}": {"items": i, "share": i / 4} for i in range(100)}
    hubs = {"k": 3, "skew": {"image": 1.25, "text": 2.5}, "per|class": many, "note": "a <b>"}
    hubs |= {"skew_interval": [1.0, 2.0], "lists": [1, 2, 3], "empty": {}, "flag": True}
    text = card(metrics={"hubs": hubs})
    assert "**hubs per\\|class**" in text and "|  | items | share |" in text
    assert "| class 3 | 3 | 0.75 |" in text and "class 40" not in text
    assert "The other 60 are in `results.json`." in text
    assert "- hubs.k: 3" in text and "- hubs.skew.text: 2.5" in text
    assert "- hubs.note: a \\<b\\>" in text and "lists" not in text and "flag" not in text


def test_the_commands_in_the_card_are_of_the_command_line(card):
    root = typer.main.get_command(app)
    block = re.search(r"```sh\n(.*?)```", card(), re.DOTALL)[1]
    commands = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert [words[0] for words in commands] == ["index", "search", "serve", "export"]
    for name, *words in commands[:2]:
        command = root.get_command(None, name)
        command = command.get_command(None, "build") if name == "index" else command
        command.make_context(name, words)  # parsed, not run
    assert "me/model" in commands[0]
