"""InfoNCE as it is written down, and in half precision, with their gradients."""

import torch
from torch.nn.functional import normalize, softplus

from fusemix_core.objectives.half import Sharpness, contrast, others_logsumexp

KEPT, MADE_AGAIN = 1 << 30, 0


def pairs(n, d, noise, seed=0):
    """Unit rows `[n, d]` and those of their partners, float64 of float32 values."""
    g = torch.Generator().manual_seed(seed)
    cause = torch.randn(n, d, generator=g)
    rows = (cause + noise * torch.randn(n, d, generator=g) for _ in range(2))
    return [normalize(x, dim=1).double() for x in rows]


def dense(x, y, temperature):
    """InfoNCE as a sum of log1p: exact where it is small, too."""
    far = (x @ y.T) / temperature
    own = far.diagonal()
    others = torch.eye(len(x), dtype=torch.bool)
    losses = [
        torch.log1p((s - own[:, None]).masked_fill(others, -torch.inf).exp().sum(1))
        for s in (far, far.T)
    ]
    return (losses[0] + losses[1]).mean() / 2


def in_half(x, y, temperature, kept=KEPT):
    fine = Sharpness(0.0).fine(temperature, x.shape[1], 0)
    rows, columns, _ = contrast(x / temperature, y, kept_bytes=kept, fine=fine)
    return (rows + columns).mean() / 2


def in_blocks(x, y, temperature, count=3):
    """The same of `count` blocks of rows against each other, as several processes make it."""
    fine = Sharpness(0.0).fine(temperature, x.shape[1], 0)
    a, b = (x / temperature).chunk(count), y.chunk(count)
    found = [
        [others_logsumexp(p, q, 0 if i == j else len(q), fine=fine) for j, q in enumerate(b)]
        for i, p in enumerate(a)
    ]
    rows = torch.cat([torch.stack([of for of, _ in line]).logsumexp(0) for line in found])
    columns = torch.cat(
        [torch.stack([line[j][1] for line in found]).logsumexp(0) for j in range(count)]
    )
    own = (x / temperature * y).sum(1)
    return (softplus(rows - own) + softplus(columns - own)).mean() / 2


def gradients(loss, x, y, temperature, dtype):
    """(loss, gradients of x, y and the temperature)."""
    given = [t.to(dtype, copy=True).requires_grad_() for t in (x, y, torch.tensor(temperature))]
    value = loss(*given)
    value.backward()
    return value.item(), [t.grad.double() for t in given]


def error(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()
