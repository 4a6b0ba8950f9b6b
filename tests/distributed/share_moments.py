"""What each process does in test_moments.py."""

import torch
from safetensors.torch import save_file

from fusemix_core.aligners import moments
from fusemix_core.aligners.cca import CCAAligner
from fusemix_core.config import Part, Recipe
from fusemix_core.gathering import rank
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents

CHUNK = 32
CASES = {
    # name: (pairs, share of entries that are missing, rows are kept)
    "many chunks": (500, 0.0, False),
    "gaps": (500, 0.3, False),
    "kept": (500, 0.0, True),
    "kept with gaps": (300, 0.3, True),
    "fewer chunks than processes": (20, 0.2, False),
}
FITS = {"linear": {"landmarks": 0, "dim": 6}, "kernel": {"landmarks": 40, "dim": 6}}


def pairs(count, missing=0.0):
    """Latents of three modalities, items in another order than the rows."""
    draw = torch.Generator().manual_seed(count)
    cause, tables = torch.randn(count, 5, generator=draw), {}
    for modality, width in (("image", 12), ("text", 9), ("audio", 7)):
        rows = cause @ torch.randn(5, width, generator=draw) + 3
        rows += 0.2 * torch.randn(rows.shape, generator=draw)
        tables[modality] = ResidentLatents(rows.half())
    links = torch.randperm(count, generator=draw)[:, None].repeat(1, 3)
    links[torch.rand(links.shape, generator=draw) < missing] = -1
    return PairedLatents(tables, links[(links >= 0).sum(1) > 1])


def found(name):
    """All that is asked of moments, as tensors."""
    count, missing, keep = CASES[name]
    least, moments._LEAST_ROWS, most = moments._LEAST_ROWS, CHUNK, moments._MOST_ROWS
    moments._MOST_ROWS = CHUNK
    try:
        of = moments.moments_of(pairs(count, missing), FitContext(), keep=keep)
    finally:
        moments._LEAST_ROWS, moments._MOST_ROWS = least, most
    ks = range(3)
    parts = {f"mean {k}": of.mean(k) for k in ks}
    parts |= {f"covariance {k} {m}": of.covariance(k, m) for k in ks for m in ks}
    parts |= {f"met {k} {m}": torch.tensor(of.met(k, m)) for k in ks for m in ks}
    return parts | {f"kept {k}": rows for k, rows in enumerate(of._kept)}


def fitted(name):
    """The parameters of a closed form."""
    split = pairs(300).only(["image", "text"]), pairs(60).only(["image", "text"])
    part = Part("cca", FITS[name])
    adapters = CCAAligner(**FITS[name]).fit(*split, Recipe("closed", part), FitContext(seed=2))
    return {
        f"{m} {key}": value.contiguous()
        for m, adapter in adapters.items()
        for key, value in adapter.state_dict().items()
    }


def share_moments(folder):
    parts = {f"{name}/{key}": value for name in CASES for key, value in found(name).items()}
    parts |= {f"fit {name}/{key}": value for name in FITS for key, value in fitted(name).items()}
    save_file({key: value.contiguous() for key, value in parts.items()}, folder / f"{rank()}.st")
