"""A generator of tokens: a text's own, or those of the caption that is nearest to another item."""

import numpy as np
import pytest
import torch
from field import Field
from fused_toys import info
from toys import TokenText

from fusemix_core import load_generator
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.errors import ConfigError
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Padded
from fusemix_core.registry import registry
from fusemix_core.scorers.cosine import CosineScorer
from fusemix_core.specs import GeneratorSpec


class Words(Field):
    """The mean of the tokens is the colour."""

    spec = GeneratorSpec(
        name="words", target="words:Words", space="toy-tokens", view="tokens",
        condition="tokens", dim=12, size=8,
    )  # fmt: skip

    def generate(self, condition, *, seeds, negative=None, size=8):
        assert isinstance(condition, Padded)
        means = condition.filled().sum(1) / condition.mask.sum(1, keepdim=True)
        return super().generate(means, seeds=seeds, size=size)


@pytest.fixture
def draw():
    registry.add(TokenText)
    registry.add(Words)
    return load_generator("words", device="cpu")


@pytest.fixture
def free():
    """A model without a fixed modality."""
    torch.manual_seed(0)
    infos = {m: info(m) for m in ("text", "audio")}
    adapters = {m: LinearAdapter(i.dim, 6) for m, i in infos.items()}
    return FusedModel(adapters, infos, CosineScorer(), device="cpu", name="runs/free")


def pixels(image):
    return np.asarray(image)


def test_a_text_gives_its_own_tokens(draw):
    first, second = draw(None, {"text": "a red fish"}), draw(None, {"text": "a bird"})
    assert not np.array_equal(pixels(first[0]), pixels(second[0]))
    both = draw(None, {"text": "a red fish"}, count=2)
    assert np.array_equal(pixels(both[0]), pixels(first[0]))


def test_a_sound_draws_the_nearest_caption_by_any_model(draw, free, sound):
    captions, notes, file = ["a red fish", "a blue bird", "an old car"], [], sound(700)
    scores = free.similarity(free.encode("audio", [file]), free.encode("text", captions),
                             "audio", "text")  # fmt: skip
    nearest = captions[int(scores.argmax())]
    image = draw(free, {"audio": file}, captions=captions, note=notes.append)[0]
    assert np.array_equal(pixels(image), pixels(draw(None, {"text": nearest})[0]))
    assert nearest in notes[0]


def test_without_captions_a_sound_is_refused_with_what_to_give(draw, free, sound):
    with pytest.raises(ConfigError) as refused:
        draw(free, {"audio": sound(700)})
    assert "--captions" in refused.value.hint


def test_sequences_are_not_mixed(draw):
    with pytest.raises(ConfigError, match="can't be mixed"):
        draw(None, [("text", "fish"), ("text", "bird")])
    with pytest.raises(ConfigError, match="embeddings"):
        draw.conditions(None).of_embeddings(torch.zeros(1, 12), "text", [0])
