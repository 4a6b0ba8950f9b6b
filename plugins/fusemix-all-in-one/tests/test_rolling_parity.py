"""Rolling gives the original's numbers; `parity/all_in_one/README.md` says where they are from."""

import json
from pathlib import Path

import pytest
import torch
from fusemix_all_in_one.rolling import roll, roll_by_layer, roll_chosen
from safetensors.torch import load_file

FOLDER = Path(__file__).parent / "parity" / "all_in_one"
HYPER = json.loads((FOLDER / "meta.json").read_text())["hyper"]
VECTORS = load_file(FOLDER / "vectors.safetensors")
CASES = sorted(name for name in VECTORS if ".out." in name)


def given(case):
    """The frames of each clip, and what rolls them as the case does."""
    size, _, variant = case.split(".")
    frames = VECTORS[f"{size}.in.tokens"].unflatten(0, (HYPER["B"], HYPER["T"]))
    if variant == "default":
        return frames, roll
    if variant == "random":
        return frames, lambda x: roll_chosen(x, VECTORS[f"{size}.in.random_tokens"])
    return frames, lambda x: roll_by_layer(x, int(variant.removeprefix("per_layer_")))


@pytest.mark.parametrize("case", CASES)
def test_numbers_of_the_original(case):
    frames, rolled = given(case)
    kept = frames.clone()
    assert torch.equal(rolled(frames).flatten(0, 1), VECTORS[case])
    assert torch.equal(frames, kept)


@pytest.mark.parametrize("case", CASES)
def test_gradients_go_where_each_token_came_from(case):
    """Each output token is one input token or zero, so its gradient is that of a permutation."""
    frames, rolled = given(case)
    clips, count, tokens, _ = frames.shape
    numbers = torch.arange(1, 1 + clips * count * tokens).view(clips, count, tokens, 1)
    source = rolled(numbers).flatten()
    wanted = torch.zeros(frames.numel() // 4, 4, dtype=torch.float64)
    weights = torch.randn(frames.shape, dtype=torch.float64, generator=torch.Generator())
    for number, weight in zip(source.tolist(), weights.flatten(0, 2), strict=True):
        if number:
            wanted[number - 1] += weight
    frames = frames.clone().requires_grad_()
    (rolled(frames) * weights).sum().backward()
    assert torch.equal(frames.grad.flatten(0, 2), wanted)


def test_a_shorter_clip_rolls_among_its_own_frames():
    frames = torch.randn(2, 5, 16, 3)
    found = roll(frames, torch.tensor([5, 3]))
    assert torch.equal(found[:1], roll(frames[:1]))
    assert torch.equal(found[1:, :3], roll(frames[1:, :3]))
    assert torch.equal(found[1, 3:], frames[1, 3:])
