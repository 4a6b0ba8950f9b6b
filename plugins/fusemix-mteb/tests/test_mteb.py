"""A fused model through mteb: its conformance tasks, CSLS in retrieval, the command."""

from __future__ import annotations

import importlib
import json
import math

import fusemix_mteb
import pytest
import torch
import toys
import typer
from fusemix_mteb import fusemix_commands
from fusemix_mteb.command import find_tasks
from torch.nn.functional import normalize
from toys import ToyImage, ToySound, ToyText
from typer.testing import CliRunner

from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.errors import ConfigError, UnknownNameError
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.scorers.csls import CSLSScorer

pytestmark = pytest.mark.slow
TOYS = {"image": ToyImage, "text": ToyText, "audio": ToySound}
WIDTH = 8


def spec_of(modality):
    """As a run by file has it."""
    return registry.encoder(f"{toys.__file__}:{TOYS[modality].__name__}")


def fused(*modalities):
    torch.manual_seed(0)
    encoders = {m: TOYS[m](spec_of(m)) for m in modalities}
    infos = {
        m: EncoderInfo.of(
            e.spec,
            modality=m,
            dim=e.spec.dim,
            fingerprint=fingerprint(e.spec, "float32", e.weights_digest),
            view="pooled",
        )
        for m, e in encoders.items()
    }
    scorer = CSLSScorer(neighbours=3)
    scorer.fit({m: normalize(torch.randn(40, WIDTH), dim=1) for m in modalities})
    adapters = {m: LinearAdapter(e.spec.dim, WIDTH) for m, e in encoders.items()}
    return FusedModel(adapters, infos, scorer, sources=encoders, device="cpu")


@pytest.fixture(scope="module")
def mteb():
    """Its import takes seconds: only a process that runs these tests pays them."""
    return importlib.import_module("mteb")


@pytest.fixture(scope="module")
def mock_retrieval():
    return importlib.import_module("mteb.mocks.mock_tasks").MockAny2AnyRetrievalT2ITask


@pytest.fixture(scope="module")
def model():
    return fusemix_mteb.FusemixModel(fused("image", "text"), "me/first run", "abc")


def test_every_mock_task_of_its_modalities_passes(mteb, model):
    found = mteb.mock_run(model)
    ran = {name: status for name, status in found.items() if status is not None}
    assert found.all_passed, found.to_markdown()
    assert len(ran) > 20
    kinds = {mod for status, mod, _ in found.modality_summary() if status.startswith("✓")}
    assert kinds == {"text", "image"}


def test_retrieval_ranks_as_the_models_own_scorer(mteb, mock_retrieval, model):
    meta = mock_retrieval().metadata
    texts = ["a red map", "two dogs and a boat", "the sea", "a chart of rain"]
    images = [picture(seed) for seed in range(12)]
    asked = model.encode(
        [{"text": texts}], task_metadata=meta, prompt_type=mteb.types.PromptType.query
    )
    batches = [{"image": images[:5]}, {"image": images[5:]}]
    kept = model.encode(batches, task_metadata=meta, prompt_type=mteb.types.PromptType.document)
    own = model.model
    wanted = own.similarity(own.encode("text", texts), own.encode("image", images), "text", "image")
    cosine = own.encode("text", texts) @ own.encode("image", images).T
    got = model.similarity(asked, kept)
    assert asked.shape == (4, WIDTH + 1)
    assert torch.equal(got.argsort(dim=1), wanted.argsort(dim=1))
    assert not torch.equal(got.argsort(dim=1), cosine.argsort(dim=1))
    spread = 2 * got - wanted  # r(q), the same for all items of the gallery
    assert torch.allclose(spread, spread[:, :1].expand_as(spread), atol=1e-5)


def test_mteb_stores_csls_under_the_name_and_revision(mteb, mock_retrieval, model, tmp_path):
    cache = mteb.ResultCache(tmp_path)
    task = mock_retrieval()
    found = mteb.evaluate(model, task, cache=cache, show_progress_bar=False)
    folder = tmp_path / "results" / "fusemix__first-run" / "abc"
    stored = json.loads((folder / f"{task.metadata.name}.json").read_text())
    assert stored["task_name"] == task.metadata.name
    assert json.loads((folder / "model_meta.json").read_text())["similarity_fn_name"] == "dot"
    assert found.task_results[0].get_score() == pytest.approx(
        stored["scores"]["test"][0]["main_score"]
    )


def test_other_tasks_get_unit_rows_and_several_modalities_their_mean(mteb, model):
    meta = mteb.get_task("STS12").metadata
    texts, images = ["a map", "", "the sea"], [picture(1), picture(2), None]
    both = model.encode([{"text": texts, "image": images}], task_metadata=meta)
    own = model.model
    text, image = own.encode("text", ["a map", "the sea"]), own.encode("image", images[:2])
    assert torch.allclose(both[0], normalize(text[0] + image[0], dim=0), atol=1e-6)
    assert torch.allclose(both[1], image[1], atol=1e-6)
    assert torch.allclose(both[2], text[1], atol=1e-6)


def test_sounds_arrive_as_mteb_gives_them(mteb):
    model = fusemix_mteb.FusemixModel(fused("audio", "text"), "sounds")
    wave = [math.sin(i / 5) for i in range(8000)]
    meta = mteb.get_task("STS12").metadata
    batch = {"audio": [{"array": torch.tensor(wave), "sampling_rate": 8000}]}
    got = model.encode([batch], task_metadata=meta)
    assert torch.allclose(got, model.model.encode("audio", [(torch.tensor(wave).numpy(), 8000)]))
    assert model.mteb_model_meta.modalities == ["text", "audio"]


def test_a_task_of_other_modalities_is_refused_by_mteb_and_by_the_batch(mteb, model):
    with pytest.raises(ConfigError, match="inputs of video"):
        model.encode([{"video": [1]}], task_metadata=mteb.get_task("STS12").metadata)


def test_molecules_written_as_text_are_not_mtebs_text():
    own = fused("image", "text")
    own.encoders["text"] = EncoderInfo(
        name="x", modality="molecule", dim=12, fingerprint="", view="pooled", takes="text"
    )
    own.encoders["molecule"] = own.encoders.pop("text")
    assert list(fusemix_mteb.FusemixModel(own, "molecules").modalities) == ["image"]


def invoke(*arguments):
    app = typer.Typer()
    app.callback()(lambda: None)
    fusemix_commands(app)
    return CliRunner().invoke(app, ["mteb", *map(str, arguments)])


def test_the_command_measures_a_run_and_leaves_out_what_it_cant(
    mteb, mock_retrieval, tmp_path, monkeypatch
):
    fused("image", "text").save_pretrained(tmp_path / "run" / "model")
    tasks = [mock_retrieval(), mteb.get_task("ESC50")]
    monkeypatch.setattr("fusemix_mteb.command.find_tasks", lambda *_: tasks)
    encoders = [f"--encoder={m}={toys.__file__}:{TOYS[m].__name__}" for m in ("image", "text")]
    done = invoke(tmp_path / "run", "-t", "x", "--out", tmp_path / "out", *encoders, "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert list(printed["scores"]) == [tasks[0].metadata.name] and not printed["failed"]
    assert "left out: ESC50 needs audio" in done.stderr
    assert len(list((tmp_path / "out" / "results" / "fusemix__run").glob("*/*.json"))) == 2


def test_unknown_and_missing_tasks_are_errors_that_say_where_they_are_listed():
    with pytest.raises(UnknownNameError, match="Flickr31k"):
        find_tasks(["Flickr31k"], [])
    with pytest.raises(ConfigError, match="No task"):
        find_tasks([], [])
    assert len(find_tasks(["STS12"], ["MIEB(lite)"])) > 10


def picture(seed):
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
