"""fusemix-diffusers: the encoders inside a pipeline, as encoders of their own."""

from __future__ import annotations

import shutil

import pytest
import torch
from fusemix_diffusers import conditions
from fusemix_diffusers.tiny import TOKENS
from PIL import Image

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.registry import registry
from fusemix_core.specs import load_target
from fusemix_core.testing.encoders import check_encoder

CPU = torch.device("cpu")
TEXTS = ["a dog", "two cats on a sofa, and a bird in the tree, and much more that is not read"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sd#text", "sd#image", pytest.param("xl#prompt", marks=pytest.mark.long)]
)
def test_parts_keep_the_encoder_contract(stable, name):
    kind, _, part = name.partition("#")
    report = check_encoder(f"condition:mine#{part}@{stable[kind][0]}", device="cpu")
    assert not [result for result in report if not result.passed]


@pytest.mark.parametrize("part", ["text", "image", "prompt"])
def test_miniatures_have_the_views_of_the_part(stable, part):
    spec = conditions.resolve(f"mine#{part}", None, stable["xl"][0])
    encoder = load_target(spec.target).tiny(spec)
    items = [Image.new("RGB", (9, 9), c) for c in ("red", "blue")] if part == "image" else TEXTS
    rows = encoder.encode(encoder.collate(items))
    assert rows.shape == (2, encoder.spec.dim) and (rows[0] - rows[1]).abs().max() > 1e-3
    assert encoder.encode(encoder.collate([])).shape == (0, encoder.spec.dim)
    if part != "image":
        tokens = encoder.encode(encoder.collate(TEXTS), "tokens")
        assert tokens.mask.all() and tokens.values.shape[:2] == (2, TOKENS + (part == "prompt"))
    with pytest.raises(ConfigError, match="no view 'grid'"):
        encoder.encode(encoder.collate(items), "grid")
    with pytest.raises(TypeError, match="takes"):
        encoder.collate([3])


def test_pooled_is_what_the_models_own_classes_give(stable):
    folder, pipeline = stable["xl"]
    ids = pipeline.tokenizer(
        TEXTS, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        first = pipeline.text_encoder(ids).pooler_output
        second = pipeline.text_encoder_2(ids).text_embeds
    for part, wanted in (("text", first), ("text2", second), ("prompt", second)):
        spec = registry.encoder(f"condition:mine#{part}@{folder}")
        encoder = registry.target_of(spec).load(spec, CPU, torch.float32)
        assert spec.dim == wanted.shape[1]
        assert torch.equal(encoder.encode(encoder.collate(TEXTS)), wanted)
        assert encoder.truncated(TEXTS) == 1


def test_an_image_is_embedded_as_the_pipeline_does_not_normalised(stable):
    folder, pipeline = stable["unclip"]
    image = Image.new("RGB", (40, 30), "teal")
    pixels = pipeline.feature_extractor(image, return_tensors="pt").pixel_values
    with torch.no_grad():
        wanted = pipeline.image_encoder(pixels).image_embeds
    spec = registry.encoder(f"condition:mine@{folder}", "image")
    encoder = registry.target_of(spec).load(spec, CPU, torch.float32)
    torch.testing.assert_close(encoder.encode(encoder.collate([image])), wanted)
    assert not spec.normalised


def test_an_image_encoder_without_a_processor_takes_clips(stable, tmp_path):
    folder, pipeline = stable["sd"]
    shutil.copytree(folder / "image_encoder", tmp_path / "image_encoder")
    spec = registry.encoder(f"condition:mine@{tmp_path}", "image")
    encoder = registry.target_of(spec).load(spec, CPU, torch.float32)
    image = Image.new("RGB", (40, 30), "teal")
    wanted = pipeline.feature_extractor(image, return_tensors="pt").pixel_values
    assert torch.equal(encoder.collate([image]), wanted)


def test_the_modality_picks_the_part(stable):
    folder = stable["sd"][0]
    assert conditions.resolve("mine", "image", folder).takes == "image"
    assert conditions.resolve("mine", "text", folder).takes == "text"
    assert conditions.resolve("mine", None, folder).options["part"] == "text"
    spec = conditions.resolve("mine#text", "caption", folder)
    assert (spec.modality, spec.takes) == ("caption", "text")


def test_parts_that_are_not_there_are_refused(stable, kandinsky, tmp_path):
    with pytest.raises(ConfigError, match="no part 'text2'") as error:
        conditions.resolve("mine#text2", None, stable["sd"][0])
    assert "text, image" in error.value.hint
    with pytest.raises(ConfigError, match="no text or image encoder"):
        conditions.resolve("mine", None, kandinsky[0])


def test_other_classes_and_code_are_refused(stable, tmp_path):
    import json

    shutil.copytree(stable["sd"][0] / "text_encoder", tmp_path / "text_encoder")
    file = tmp_path / "text_encoder/config.json"
    known = json.loads(file.read_text())
    for change in ({"architectures": ["T5EncoderModel"]}, {"auto_map": {"AutoModel": "x.Y"}}):
        file.write_text(json.dumps(known | change))
        with pytest.raises(ArtefactError, match="text_encoder is a"):
            conditions.resolve("mine", None, tmp_path)
