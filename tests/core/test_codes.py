"""Codes of embeddings: what int8 and binary keep of cosines, and that they stay the same."""

import hashlib

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.codes import coded, decoded, int8_scale, spread
from fusemix_core.errors import UnknownNameError


def decaying(n, d, seed=0):
    """Unit-norm rows whose later dimensions are ever smaller, as those of CCA are."""
    draw = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return normalize(draw * torch.linspace(1, 0.02, d) ** 2, dim=1)


@pytest.mark.parametrize("dim", [1, 2, 7, 64, 384])
def test_spreading_is_orthogonal(dim):
    turned = spread(dim)
    torch.testing.assert_close(turned.T @ turned, torch.eye(dim), atol=1e-5, rtol=0)


def test_spreading_makes_dimensions_alike():
    rows = decaying(500, 128)
    before, after = rows.std(0), (rows @ spread(128)).std(0)
    assert before.max() / before.min() > 100
    assert after.max() / after.min() < 3


def test_spreading_is_the_same_in_every_version():
    rounded = (spread(48).double() * 1e4).round().to(torch.int32).numpy()
    assert hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == "7ee05e85d2b1db02"


def test_int8_products_are_cosines_by_a_known_scale():
    a, b = decaying(50, 96), decaying(60, 96, seed=1)
    codes = [coded(rows, "int8") for rows in (a, b)]
    assert codes[0].dtype == torch.int8
    products = (codes[0].int() @ codes[1].int().T).float() / int8_scale(96) ** 2
    torch.testing.assert_close(products, a @ b.T, atol=0.008, rtol=0)


def test_float16_stays_in_its_own_dimensions():
    rows = decaying(5, 32)
    assert torch.equal(coded(rows, "float16"), rows.half())


def test_hamming_distance_of_bits_orders_as_the_cosine_of_what_they_stand_for():
    rows = decaying(40, 36)
    codes = coded(rows, "binary")
    assert codes.shape == (40, 5) and codes.dtype == torch.uint8
    bits = np.unpackbits(codes.numpy(), axis=1).astype(int)
    differ = (bits[:, None] != bits[None]).sum(2)
    stand_for = decoded(codes, 36)
    torch.testing.assert_close(
        stand_for @ stand_for.T, torch.from_numpy(1 - 2 * differ / 36).float(), atol=1e-5, rtol=0
    )


def test_bits_of_decaying_dimensions_find_more_after_spreading():
    rows = decaying(400, 128)
    near = (rows @ rows.T).topk(10).indices

    def overlap(stand_for):
        found = (stand_for @ stand_for.T).topk(10).indices
        return (
            np.mean(
                [len(set(a) & set(b)) for a, b in zip(near.tolist(), found.tolist(), strict=True)]
            )
            / 10
        )

    assert overlap(decoded(coded(rows, "binary"), 128)) > overlap(rows.sign()) + 0.1


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "binary"])
def test_decoded_rows_have_unit_norm(dtype):
    rows = decaying(9, 20)
    found = decoded(coded(rows, dtype), 20)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(9))
    assert (found * rows).sum(1).min() > (0.6 if dtype == "binary" else 0.999)


def test_an_unknown_type_is_an_error_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="int4"):
        coded(decaying(2, 4), "int4")
