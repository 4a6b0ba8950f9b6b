"""A model with the starter's real encoders: in threads, in a forked child, pickled, and against
extraction.

The first three follow a script that did so with a model of the default recipe, whose text view is
`layers-middle-last`: it raised KeyError 'all_layer_embeddings' in threads, hung in a forked child,
and could not be pickled.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from fusemix_starter import sample_path
from loaded import shallow_encoders

from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.config import DataConfig
from fusemix_core.data.reading import read_pairs
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.interfaces import Padded
from fusemix_core.latents.backends import agreement
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.extraction import extract
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.latents.store import LatentStore
from fusemix_core.registry import registry
from fusemix_core.scorers.cosine import CosineScorer

TEXTS = [f"text {i} " + "word " * i for i in range(8)]


def made(views: dict[str, str], widths: dict[str, int]) -> FusedModel:
    """An untrained model of the starter's encoders."""
    torch.manual_seed(0)
    infos = {}
    for modality, name in (("image", "efficientnet-lite0"), ("text", "minilm")):
        spec = registry.encoder(name)
        infos[modality] = EncoderInfo.of(
            spec,
            modality=modality,
            dim=widths[modality],
            fingerprint=fingerprint(spec, "float32"),
            view=views[modality],
        )
    adapters = {m: LinearAdapter(width, 16) for m, width in widths.items()}
    return FusedModel(adapters, infos, CosineScorer(), device="cpu")


@pytest.fixture(scope="module")
def model() -> FusedModel:
    views = {"image": "pooled", "text": "layers-middle-last"}
    return made(views, {"image": 1280, "text": 768})


@pytest.mark.slow
def test_four_threads_encode_texts_by_their_layers(model):
    expected = model.encode("text", TEXTS)
    with ThreadPoolExecutor(4) as pool:
        runs = [
            pool.submit(lambda: [model.encode("text", TEXTS) for _ in range(5)]) for _ in range(4)
        ]
        found = [rows for run in runs for rows in run.result()]
    assert all(torch.equal(rows, expected) for rows in found)


def test_pickles_and_copies_of_a_model_that_has_encoded_give_the_same(model):
    expected = model.encode("text", TEXTS)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):  # noqa: S301 - own
        assert torch.equal(other.encode("text", TEXTS), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_encodes(model):
    """Of a parent that has encoded in two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = model.encode("text", TEXTS)

        def work():
            same = torch.allclose(model.encode("text", TEXTS), expected, atol=1e-5)
            os._exit(0 if same else 3)

        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join(100)
        hangs = child.is_alive()
        child.kill()
        child.join()
    finally:
        torch.set_num_threads(threads)
    assert not hangs and child.exitcode == 0


@pytest.fixture(scope="module")
def items():
    takes = {"image": "image", "text": "text"}
    return read_pairs(DataConfig((str(sample_path()),), columns=takes), takes).items


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modality", "view", "backend"),
    [
        ("image", "pooled", "eager"),
        ("text", "pooled", "eager"),
        ("text", "layers-middle-last", "eager"),
        ("text", "tokens", "eager"),
        pytest.param("text", "pooled", "openvino", marks=pytest.mark.long),
    ],
)
def test_latents_are_those_of_extraction(tmp_path, monkeypatch, items, modality, view, backend):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path))  # both take what one of them exported
    if backend == "openvino":
        pytest.importorskip("openvino")
    else:
        shallow_encoders(monkeypatch)
    items = items[modality].select(range(33 if modality == "image" else 70))
    views = {"image": "pooled", "text": "pooled", modality: view}
    model = made(views, {"image": 1280, "text": 768 if "layers" in view else 384})
    lazy = model.encoder(modality)
    how = Encoding(store_dtype="float32", backend=backend)
    done = extract(lazy.spec, items, LatentStore(tmp_path), how, view=view)
    stored = done.table.rows(torch.arange(len(items)))
    given = [str(reference) for reference in items.references]
    found = model.latents(modality, given, backend=backend)
    if isinstance(stored, Padded):
        assert torch.equal(stored.mask, found.mask)
        assert torch.equal(stored.filled(), found.filled())
    elif backend == "eager":
        assert torch.equal(stored, found)
    else:
        torch.testing.assert_close(stored, found, rtol=1e-4, atol=1e-5)
        torchs = registry.target_of(lazy.spec).load(lazy.spec, torch.device("cpu"), torch.float32)
        few = range(0, len(items), 10)
        expected = torchs.encode(torchs.collate([items.load(i) for i in few]))
        assert agreement(expected, stored[list(few)]) > 0.999999
