"""fusemix-emoji: the shipped weights draw what the condition says."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fusemix_emoji
import numpy as np
import pytest
import torch
from fusemix_emoji import EMOJI

from fusemix_core import load_generator
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.generation.loading import LoadedGenerator
from fusemix_core.testing.generators import check_generator

WEIGHTS = Path(fusemix_emoji.__file__).parent / "weights"
COLOURS = {"red apple": 0, "strawberry": 0, "frog": 1, "broccoli": 1, "blue car": 2, "jeans": 2}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def draw() -> LoadedGenerator:
    return load_generator(EMOJI, device="cpu")


@pytest.fixture(scope="module")
def conditions(draw) -> torch.Tensor:
    return draw.conditions(None).of_items("text", list(COLOURS), range(len(COLOURS)))


def pixels(images) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(float)


def test_the_weights_are_small_and_the_checked_ones(tmp_path):
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    with pytest.raises(ArtefactError, match="SHA-256"):
        load_generator(replace(EMOJI, sha256="0" * 64), device="cpu")


def test_listing_imports_neither_torch_nor_diffusers():
    code = (
        "import sys, fusemix_emoji; list(fusemix_emoji.fusemix_generators());"
        "assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_colours_follow_the_text(draw, conditions):
    """The mean of what is not white leans to the colour of the thing, for most seeds."""
    right = []
    for seed in range(3):
        images = pixels(draw.draw(conditions, [seed] * len(conditions), size=32))
        for image, channel in zip(images, COLOURS.values(), strict=True):
            inside = image[image.min(-1) < 230]
            right.append(len(inside) > 50 and inside.mean(0).argmax() == channel)
    assert sum(right) >= 15, right


@pytest.mark.slow
def test_same_seed_same_image_and_another_seed_another_one(draw, conditions):
    one = conditions[:1].expand(3, -1)
    first, again, other = pixels(draw.draw(one, [5, 5, 6], size=32))
    np.testing.assert_allclose(first, again, atol=1)
    assert np.abs(first - other).mean() > 2
    alone, again = (pixels(draw.draw(one[:1], [5], size=32))[0] for _ in range(2))
    np.testing.assert_array_equal(alone, again)
    np.testing.assert_allclose(first, alone, atol=1)  # a batch rounds otherwise


def test_the_condition_nothing_gives_no_single_thing(draw, conditions):
    """From one seed, two texts differ from each other and from the condition zero."""
    nothing = draw.generator.null(1)
    rows = torch.cat([conditions[:1], conditions[2:3], nothing])
    a, b, c = pixels(draw.draw(rows, [0, 0, 0], size=32))
    assert min(np.abs(a - b).mean(), np.abs(a - c).mean(), np.abs(b - c).mean()) > 5


def test_an_image_takes_less_than_two_seconds(draw, conditions):
    began = time.process_time()
    draw.draw(conditions[:1], [0])
    assert time.process_time() - began < 2


def test_any_size_is_the_same_drawing_enlarged(draw, conditions):
    small, large = (draw.draw(conditions[:1], [0], size=size)[0] for size in (32, 100))
    assert large.size == (100, 100)
    assert np.abs(pixels([large.resize((32, 32))]) - pixels([small])).mean() < 6


def test_another_width_is_refused(draw):
    with pytest.raises(ConfigError, match="384"):
        draw.draw(torch.zeros(1, 512), [0])


def test_the_bank_has_the_names(draw):
    bank = draw.generator.bank()
    row = draw.conditions(None).of_items("text", ["rooster"], [0])
    assert len(bank) > 600 and (bank @ row.T).max() > 0.999
    torch.testing.assert_close(bank.norm(dim=1), torch.ones(len(bank)), atol=1e-3, rtol=0)


@pytest.mark.long  # short: fusemix-diffusers' test_diffusers_light.py, on random networks
def test_diffusers_own_pipeline_draws_the_same(draw, conditions):
    from diffusers import KandinskyV22Pipeline

    pipeline = KandinskyV22Pipeline.from_pretrained(
        WEIGHTS, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    found = pipeline(
        image_embeds=conditions[:2],
        negative_image_embeds=torch.zeros_like(conditions[:2]),
        height=32,
        width=32,
        num_inference_steps=5,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(seed) for seed in (0, 1)],
    )
    ours = draw.draw(conditions[:2], [0, 1], size=32, steps=5, guidance=3.0)
    np.testing.assert_allclose(pixels(found.images), pixels(ours), atol=2)


@pytest.mark.slow
def test_it_passes_the_kit():
    check_generator(EMOJI)
