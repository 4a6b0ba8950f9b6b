"""Runs made short where a test is not of what they compute: pages, scripts, notebooks."""

from __future__ import annotations

import math
import os

from loaded import share_encoders

from fusemix_core.adapters import mlp
from fusemix_core.latents import backends, exported
from fusemix_core.reports import figures

NARROWER = 64


def shorten(patch) -> None:
    """In a process that tests start: encoders of few layers, narrow adapters, no figures, nothing
    compiled or exported and nothing forced to the disk."""
    share_encoders(patch, shallow=True)
    narrow(patch)
    patch.setattr(figures, "_svg", lambda *_, **__: "<svg></svg>")
    patch.setattr(backends, "EXPORT_SECONDS", math.inf)
    patch.setattr(exported, "exported", lambda *_: b"a graph")
    patch.setattr(os, "fsync", lambda file: None)


def narrow(patch) -> None:
    """FuseMix's blocks with a sixty-fourth of their hidden units. Of the packaged encoders' widths
    they have 70 million weights, and each checkpoint takes seconds to write."""
    block = mlp.Block
    patch.setattr(mlp, "Block", lambda dim, ratio, drop: block(dim, ratio / NARROWER, drop))
