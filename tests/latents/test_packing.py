"""Batches in shared memory: the same tensors and arrays, whatever they lie in."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fusemix_core.latents.packing import Shared, pack, unpack


@dataclass
class Windows:
    mel: np.ndarray
    clips: int


@pytest.fixture
def shared():
    memory = Shared()
    yield memory
    memory.close()


def there_and_back(value, shared):
    text, size = pack(value, shared)
    return unpack(text, size, Shared(shared.descriptor))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.randn(3, 4).to(torch.bfloat16),
        torch.randint(0, 255, (2, 3, 4, 5), dtype=torch.uint8),
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        torch.randn(6, 8)[::2, 1:],
        torch.tensor([True, False]),
        torch.tensor(5),
        torch.empty(0, 7),
    ],
    ids=lambda t: f"{t.dtype} {list(t.shape)}",
)
def test_tensors_keep_their_values_and_their_order_in_memory(tensor, shared):
    found = there_and_back({"a": [tensor, tensor], "b": ("text", 3)}, shared)
    assert found["b"] == ("text", 3)
    for one in found["a"]:
        assert one.dtype == tensor.dtype and torch.equal(one, tensor)
        if tensor.is_contiguous() or tensor.ndim == 4:
            assert one.stride() == tensor.stride()


def test_arrays_inside_an_object_and_texts_come_through(shared):
    value = Windows(np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)[:, ::2], 3)
    found = there_and_back([value, np.array(["a", "b"])], shared)
    assert np.array_equal(found[0].mel, value.mel) and found[0].clips == 3
    assert found[1].tolist() == ["a", "b"]


def test_memory_grows_and_is_used_again_without_touching_what_was_unpacked(shared):
    first, second = torch.ones(10), torch.full((100_000,), 2.0)
    one = there_and_back(first, shared)
    two = there_and_back(second, shared)
    there_and_back(torch.zeros(10), shared)
    assert torch.equal(one, first) and torch.equal(two, second)


def test_bytes_are_in_the_memory_and_not_in_the_pickle(shared):
    text, size = pack({"pixels": torch.zeros(1000, 1000)}, shared)
    assert len(text) < 1000 and size == 4_000_000
