"""A generator by its name, and what it draws from a fused model or from its own space."""

from pathlib import Path

import numpy as np
import pytest
import torch
from field import Field
from fused_toys import info
from toys import ToyText

from fusemix_core import load_generator
from fusemix_core.errors import ConfigError, DataError, UnknownNameError


def pixels(image):
    return np.asarray(image)


@pytest.fixture
def draw():
    return load_generator("field", device="cpu")


def test_a_sound_draws_what_its_embedding_says(draw, fused, sound):
    model = fused()
    file = sound(440)
    [image] = draw(model, {"audio": file}, noise=0.0)
    shade = model.encode("audio", [file])[0, :3].sigmoid() * 255
    assert torch.allclose(torch.tensor(pixels(image)[0, 0]).float(), shade.round())


def test_text_of_the_own_space_needs_no_model(draw, fused):
    with_model = draw(fused(), {"text": "a red fish"})[0]
    alone = draw(None, {"text": "a red fish"})[0]
    assert np.array_equal(pixels(with_model), pixels(alone))
    assert not np.array_equal(pixels(alone), pixels(draw(None, {"text": "a blue bird"})[0]))


def test_seeds_follow_each_other_and_give_the_same_again(draw):
    four = draw(None, {"text": "fish"}, count=4, seed=3)
    assert len({pixels(image).tobytes() for image in four}) == 4
    third = draw(None, {"text": "fish"}, seed=5)[0]
    assert np.array_equal(pixels(third), pixels(four[2]))


def test_a_mixture_lies_between_its_items(draw):
    def shade(*items, **more):
        return pixels(draw(None, items, noise=0.0, **more)[0])[0, 0].astype(int)

    fish, bird = ("text", "fish"), ("text", "bird")
    ends = shade(fish), shade(bird)
    assert np.array_equal(shade(fish, bird, weights=[1, 0]), ends[0])
    near = np.abs(shade(fish, bird, weights=[0.8, 0.2]) - ends[0]).sum()
    assert near < np.abs(shade(fish, bird, weights=[0.2, 0.8]) - ends[0]).sum()


def test_what_to_avoid_reaches_the_generator(draw):
    plain = draw(None, {"text": "fish"}, noise=0.0)[0]
    away = draw(None, {"text": "fish"}, avoid={"text": "bird"}, noise=0.0, guidance=2.0)[0]
    assert not np.array_equal(pixels(plain), pixels(away))


def test_embeddings_draw_as_their_items_do(draw, fused, sound):
    model, files = fused(), [sound(200), sound(900)]
    rows = model.encode("audio", files)
    both = draw.from_embeddings(rows, model=model, modality="audio", seeds=[7, 8])
    assert np.array_equal(pixels(both[1]), pixels(draw(model, {"audio": files[1]}, seed=8)[0]))


@pytest.mark.parametrize("modality", [None, "image"])
def test_a_model_without_the_space_is_refused_with_the_line_to_type(draw, fused, modality):
    model = fused("text", "audio", "image", fixed=modality)
    with pytest.raises(ConfigError) as refused:
        draw(model, {"audio": "a.wav"})
    assert "toy-text" in refused.value.message
    line = "-e audio=toy-sound -e image=toy-image -e text=toy-text --fixed text --data PAIRS"
    assert line in refused.value.hint


def test_another_version_of_the_encoder_is_refused(draw, fused):
    model = fused(text=info("text", fingerprint="0" * 32))
    with pytest.raises(ConfigError, match="Another version"):
        draw(model, {"text": "fish"})


def test_without_a_model_another_modality_is_refused(draw, sound):
    with pytest.raises(ConfigError) as refused:
        draw(None, {"audio": sound(440)})
    assert "fusemix align -e audio=ENCODER -e text=toy-text" in refused.value.hint


def test_a_silent_clip_is_refused(draw, fused, sound):
    with pytest.raises(DataError, match="silent"):
        draw(fused(), {"audio": sound(0)})
    with pytest.raises(DataError, match="empty"):
        draw(None, {"text": " "})


def test_a_wrong_width_is_refused_before_anything_is_drawn(draw):
    with pytest.raises(ConfigError, match="width 12"):
        draw.from_embeddings(torch.zeros(1, 11))


def test_an_unknown_option_is_refused(draw):
    with pytest.raises(UnknownNameError, match="steps"):
        draw(None, {"text": "fish"}, steps=3)


def test_a_generator_in_a_file_is_loaded_by_its_class():
    draw = load_generator(f"{Path(__file__).parent.parent / 'field.py'}:Field", device="cpu")
    assert draw.spec.local and len(draw(None, {"text": "fish"})) == 1


def test_the_width_of_the_space_is_compared(draw):
    draw.generator.spec = draw.spec = Field.spec.__class__(
        name="wide", target="field:Field", space="toy-text", dim=99
    )
    with pytest.raises(ConfigError, match=f"99.*{ToyText.spec.dim}"):
        draw(None, {"text": "fish"})
