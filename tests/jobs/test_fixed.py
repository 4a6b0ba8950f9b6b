"""One-sided runs: a modality keeps its latents as embeddings, and others are fitted to them."""

import json

import pytest
import torch
from pairs import write_world
from torch.nn.functional import normalize
from toys import ToyImage, ToySound, ToyText

from fusemix_core import FusedModel, align
from fusemix_core.errors import ConfigError, ContractError
from fusemix_core.interfaces import Aligner
from fusemix_core.jobs import measured_data
from fusemix_core.jobs.evaluate import evaluate
from fusemix_core.registry import registry

ENCODERS = {"image": ToyImage, "text": ToyText}
TRAINED = {
    "recipe": "fusemix",
    "overrides": ["training.epochs=3", "adapter.blocks=1", "training.batch_size=8"],
}


LONG = [pytest.param({"recipe": r}, marks=pytest.mark.long) for r in ("ridge", "procrustes")]


@pytest.mark.parametrize("how", [{}, TRAINED, *LONG])
def test_the_fixed_side_is_its_latent(tmp_path, how):
    data = write_world(tmp_path / "w")
    done = align(ENCODERS, data, fixed="text", out=tmp_path / "r", device="cpu", **how)
    texts = ["a red car", "a blue bird"]
    encoder = ToyText.load(ToyText.spec, torch.device("cpu"), torch.float32)
    latents = encoder.encode(encoder.collate(texts))
    assert torch.equal(done.model.encode("text", texts), normalize(latents, dim=1))
    assert done.model.dim == ToyText.spec.dim
    again = FusedModel.from_pretrained(
        tmp_path / "r/model", encoders={m: e.spec for m, e in ENCODERS.items()}
    )
    picture = [tmp_path / "w/1.png"]
    assert torch.equal(again.encode("image", picture), done.model.encode("image", picture))
    assert "identity" in (tmp_path / "r/model/config.json").read_text()


@pytest.mark.slow
def test_both_sides_of_a_pair_can_be_the_fixed_one_and_a_third_joins(tmp_path):
    """Measured on the training pairs: the toy world's other galleries are too small to tell."""
    data = write_world(tmp_path / "w", count=480, sounds=True)
    done = align({**ENCODERS, "audio": ToySound}, data, fixed=["image"], out=tmp_path / "r")
    what = measured_data.measured_data(tmp_path / "r", {}, None, None)
    found = evaluate(done.model, what.config, "train", seed=what.seed)
    directions = found["retrieval"]["directions"]
    for direction in ("text->image", "audio->image", "text->audio"):
        found = directions[direction]
        assert found["r5"] > 2 * 100 * 5 / found["gallery"], direction


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fixed": "audio"}, "audio"),
        ({"fixed": ["image", "text"]}, "nothing to fit"),
        ({"fixed": "text", "recipe": "csa"}, "moves every modality"),
        ({"fixed": "text", "recipe": "asif"}, "moves every modality"),
        (
            {
                "fixed": "text",
                "recipe": "fusemix",
                "overrides": ["start=csa", "adapter=csa"],
            },
            "moves every modality",
        ),
    ],
)
def test_what_can_not_be_is_refused_before_anything_is_encoded(tmp_path, settings, says):
    data = write_world(tmp_path / "w", count=20)
    with pytest.raises(ConfigError, match=says) as error:
        align(ENCODERS, data, out=tmp_path / "r", **settings)
    assert error.value.hint
    assert not (tmp_path / "r").exists()


def test_fixed_latents_of_different_widths_are_refused(tmp_path):
    data = write_world(tmp_path / "w", count=40, sounds=True)
    encoders = {**ENCODERS, "audio": ToySound}
    with pytest.raises(ConfigError, match="text 12, audio 10"):
        align(encoders, data, fixed=["text", "audio"], out=tmp_path / "r")


def test_an_aligner_that_moves_the_fixed_side_is_found_out(tmp_path):
    class Moves(Aligner):
        uses = ("fixed",)

        def fit(self, train, validation, recipe, context):
            fitted = registry.target_of(registry.component("aligner", "cca"))().fit(
                train, validation, recipe, context
            )
            return {**fitted, "text": fitted["image"]}

    registry.add_component("aligner", "moves-the-fixed", Moves)
    data = write_world(tmp_path / "w")
    with pytest.raises(ContractError, match="fixed adapter of text"):
        align(
            ENCODERS, data, fixed="text", overrides=["aligner=moves-the-fixed"], out=tmp_path / "r"
        )


def test_the_config_of_a_run_says_what_is_fixed_and_the_run_can_be_resumed(tmp_path):
    data = write_world(tmp_path / "w")
    how = {"fixed": "text", "device": "cpu", "out": tmp_path / "r", **TRAINED}
    first = align(ENCODERS, data, **how)
    weights = (tmp_path / "r/model/model.safetensors").read_bytes()
    again = align(ENCODERS, data, resume=True, **how)
    assert 'fixed = [\n    "text",\n]' in (tmp_path / "r/config.toml").read_text()
    assert (tmp_path / "r/model/model.safetensors").read_bytes() == weights
    assert json.dumps(first.results["test"]) == json.dumps(again.results["test"])
    with pytest.raises(ConfigError, match="fixed"):
        align(ENCODERS, data, resume=True, **{**how, "fixed": "image"})
