"""Batches for objectives: embeddings of one cause, items that rows share, gaps."""

import torch


def batch_of(n, modalities=2, sources=1, gaps=False, dtype=torch.float64, seed=0):
    """Embeddings and links in which a third of the rows share items with others."""
    g = torch.Generator().manual_seed(seed)
    cause = torch.randn(n, 8, generator=g, dtype=torch.float64)
    embeddings = {
        f"m{k}": (cause + torch.randn(n, 8, generator=g, dtype=torch.float64)).to(dtype)
        for k in range(modalities)
    }
    links = torch.arange(n * sources).reshape(n, sources, 1).repeat(1, 1, modalities)
    again = torch.rand(links.shape, generator=g) < 0.2
    links[again] = torch.randint(max(n // 4, 1), (int(again.sum()),), generator=g)
    if gaps:
        missing = torch.rand(n, 1, modalities, generator=g) < 0.3
        links[missing.expand_as(links)] = -1
    return {m: x.requires_grad_() for m, x in embeddings.items()}, links
