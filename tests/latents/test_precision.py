import numpy as np
import pytest

from fusemix_core.latents.precision import neighbours_kept, to_float16


def rows(n=300, d=32, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def float16_fault(latents):
    rounded, fault = to_float16(latents)
    assert rounded.dtype == np.float16
    if not fault:
        np.testing.assert_allclose(rounded.astype(np.float32), latents, rtol=1e-3, atol=1e-7)
    return fault


def test_ordinary_latents_keep_their_neighbours():
    for scale in (1e-2, 1.0, 1e3):
        assert float16_fault(rows() * np.float32(scale)) == ""


def test_overflow_is_a_fault_of_range():
    latents = rows()
    latents[17, 3] = 7e4
    assert float16_fault(latents) == "range"
    latents[17, 3] = 6.5e4
    assert float16_fault(latents) == ""


def test_underflow_loses_the_order():
    assert float16_fault(rows() * np.float32(1e-9)) == "order"


def test_a_narrow_cone_loses_the_order():
    offset = np.full(32, 100, np.float32)
    assert float16_fault(offset + np.float32(0.01) * rows()) == "order"
    assert float16_fault(offset + np.float32(50) * rows()) == ""


def test_repeated_rows_are_ties_and_no_loss():
    assert float16_fault(np.repeat(rows(20), 15, axis=0)) == ""
    assert float16_fault(np.tile(rows(1), (50, 1))) == ""


@pytest.mark.parametrize("n", [1, 2, 3, 11, 12])
def test_few_rows(n):
    assert float16_fault(rows(n)) == ""
    assert neighbours_kept(rows(n), rows(n)) == 1


def test_rows_of_zeros_and_of_more_dimensions():
    assert float16_fault(np.zeros((20, 4), np.float32)) == ""
    assert float16_fault(rows(64).reshape(64, 4, 8)) == ""


def test_the_share_is_that_of_a_naive_count():
    exact = rows(60, 8)
    other = exact + 0.3 * rows(60, 8, seed=1)
    naive = []
    for i in range(60):
        cosine = [
            np.dot(exact[i], exact[j]) / np.linalg.norm(exact[i]) / np.linalg.norm(exact[j])
            for j in range(60)
        ]
        cast = [
            np.dot(other[i], other[j]) / np.linalg.norm(other[i]) / np.linalg.norm(other[j])
            for j in range(60)
        ]
        others = [j for j in range(60) if j != i]
        tenth = sorted((cosine[j] for j in others), reverse=True)[9]
        bar = tenth - 0.01 * np.std([cosine[j] for j in others])
        chosen = sorted(others, key=lambda j: -cast[j])[:10]
        naive.append(np.mean([cosine[j] >= bar for j in chosen]))
    assert neighbours_kept(exact, other) == pytest.approx(np.mean(naive), abs=2e-3)
    assert 0.2 < np.mean(naive) < 0.95
