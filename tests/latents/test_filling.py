"""What was encoded is put in order for a shard, in the memory of about one copy."""

import tracemalloc

import numpy as np
import pytest

from fusemix_core.latents.filling import _in_order
from fusemix_core.latents.returned import Latents


def encoded(batches, width, ragged):
    """(batches of items in a random order, the item numbers, the rows of each item)."""
    draw = np.random.default_rng(0)
    index = draw.permutation(batches * 16).reshape(batches, 16)
    lengths = draw.integers(1, 5, index.shape) if ragged else np.ones(index.shape, np.int64)
    rows, items = [], {}
    for own, counts in zip(index, lengths, strict=True):
        values = draw.random((int(counts.sum()), width), np.float32)
        items |= dict(zip(own.tolist(), np.split(values, np.cumsum(counts)[:-1]), strict=True))
        rows.append((own.tolist(), Latents(values, counts if ragged else None)))
    return rows, index.reshape(-1), items


@pytest.mark.parametrize("ragged", [False, True])
def test_latents_come_in_the_order_of_the_items(ragged):
    rows, index, items = encoded(5, 3, ragged)
    values, lengths = _in_order(rows, np.argsort(index))
    assert np.array_equal(values, np.concatenate([items[i] for i in range(80)]))
    if ragged:
        assert lengths.tolist() == [len(items[i]) for i in range(80)]
    else:
        assert lengths is None


@pytest.mark.parametrize("ragged", [False, True])
def test_a_shard_in_the_making_is_in_memory_once(ragged):
    tracemalloc.start()
    rows, index, items = encoded(64, 2_000, ragged)
    del items
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    values, _ = _in_order(rows, np.argsort(index))
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert values.nbytes > 0.8 * before and not rows
    assert now < 1.1 * before  # what was encoded is let go of
    assert peak < 2.1 * before  # of this the new copy is untouched pages at first
