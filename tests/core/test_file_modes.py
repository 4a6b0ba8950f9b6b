"""Files have the mode that the umask gives, however they are written."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.disk import give_usual_mode, write_atomically
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents
from fusemix_core.latents.store import LatentStore
from fusemix_core.runs.folder import RunFolder
from fusemix_core.specs import EncoderSpec


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder):
    return {p.stat().st_mode & 0o777 for p in folder.rglob("*") if p.is_file()}


def test_checkpoints(umask, tmp_path):
    tables = {m: ResidentLatents(torch.randn(16, d)) for m, d in (("image", 5), ("text", 3))}
    pairs = PairedLatents(tables, torch.arange(16)[:, None].repeat(1, 2))
    recipe = Recipe(
        "small", Part("gradient"), dim=4, adapter=Part("linear"), objective=Part("infonce"),
        training=Training(epochs=2, batch_size=4),
    )  # fmt: skip
    GradientAligner().fit(pairs, pairs, recipe, FitContext(checkpoints=tmp_path))
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) >= 2
    assert modes(tmp_path) == {0o666 & ~umask}


def test_latents_results_and_whole_files(umask, tmp_path):
    store = LatentStore(tmp_path)
    spec = EncoderSpec(name="e", modality="text", target="a:B")
    rows = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    keys = np.arange(6, dtype=np.uint64).reshape(3, 2)
    store.write("f" * 32, "pooled", keys, rows, spec=spec, store_dtype="float32")
    folder = RunFolder(tmp_path)
    folder.write_json(folder.results, {"a": 1})
    write_atomically(tmp_path / "whole", [b"x"])
    assert len(list(tmp_path.rglob("*.*"))) >= 2
    assert modes(tmp_path) == {0o666 & ~umask}


def test_a_private_file_gets_the_usual_mode_and_nothing_is_left_beside_it(umask, tmp_path):
    (tmp_path / "private").touch(0o600)
    (tmp_path / "private").chmod(0o600)
    give_usual_mode(tmp_path / "private")
    assert [p.name for p in tmp_path.iterdir()] == ["private"]
    assert modes(tmp_path) == {0o666 & ~umask}
