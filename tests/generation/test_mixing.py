"""Mixtures lie on the sphere, by the weights."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.generation.mixing import between, mixed


def rows(seed, n=5, d=16):
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_two_are_mixed_by_spherical_interpolation(share):
    a, b = rows(0).double().numpy(), rows(1).double().numpy()
    angle = np.arccos((a * b).sum(1, keepdims=True))
    slerp = np.sin((1 - share) * angle) * a + np.sin(share * angle) * b
    expected = slerp / np.sin(angle)
    found = mixed([rows(0), rows(1)], [1 - share, share])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_lengths_are_averaged_apart_from_directions():
    found = mixed([rows(0), 9 * rows(1)])
    torch.testing.assert_close(found.norm(dim=1), torch.full((5,), 5.0))
    torch.testing.assert_close(normalize(found, dim=1), mixed([rows(0), rows(1)]))


def test_of_three_only_ratios_of_weights_count_and_their_order_does_not():
    three = [rows(seed) for seed in range(3)]
    found = mixed(three, [2, 1, 1])
    torch.testing.assert_close(found, mixed(three, [0.5, 0.25, 0.25]))
    torch.testing.assert_close(found, mixed(three[::-1], [1, 1, 2]))
    torch.testing.assert_close(mixed([three[0]] * 3), three[0])


def test_a_strip_has_equal_angles():
    strip = between(rows(0, n=1), rows(1, n=1), 6)
    torch.testing.assert_close(strip[:1], rows(0, n=1))
    torch.testing.assert_close(strip[-1:], rows(1, n=1))
    angles = (strip[:-1] * strip[1:]).sum(1).acos()
    torch.testing.assert_close(angles, angles.mean().expand(5), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [-1, 2], [0, 0], [float("inf"), 1]])
def test_weights_that_make_no_mean_are_refused(weights):
    with pytest.raises(ConfigError, match="weights"):
        mixed([rows(0), rows(1)], weights)


def test_opposites_have_nothing_between_them():
    with pytest.raises(ConfigError, match="opposite"):
        mixed([rows(0), -rows(0)])
