"""A model in threads, in forked processes, in copies and pickles.

After a script that loaded a run's model, encoded texts in four threads and in a forked child, and
pickled the model: it raised KeyError 'all_layer_embeddings', hung, and could not be pickled.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import started
import torch
from toys import ToyImage, ToyText

import fusemix_core
from fusemix_core.latents.sharing import Locks, locks_of

TEXTS = [f"text {i} " + "word " * i for i in range(8)]
OLD = Path(__file__).parent / "format1" / "model"


class Flagged(ToyText):
    """Sets a flag on itself for the time of a call, as libraries do, and has one tokenizer."""

    def __init__(self, spec, device=torch.device("cpu")):
        super().__init__(spec, device)
        self.flag, self.borrowed = False, False
        self.faults = []

    def collate(self, items):
        if self.borrowed:
            self.faults.append("Already borrowed")
        self.borrowed = True
        threading.Event().wait(0.001)
        self.borrowed = False
        return super().collate(items)

    def encode(self, batch, view="pooled"):
        before, self.flag = self.flag, True
        threading.Event().wait(0.001)
        if not self.flag:
            self.faults.append("KeyError: 'all_layer_embeddings'")
        self.flag = before
        return super().encode(batch, view)


def loaded(text=None, **more):
    sources = {"image": ToyImage(ToyImage.spec), "text": text or ToyText(ToyText.spec)}
    return fusemix_core.load(OLD, encoders=sources, device="cpu", **more)


def in_threads(count, work):
    with ThreadPoolExecutor(count) as pool:
        return [done.result() for done in [pool.submit(work) for _ in range(count)]]


def test_threads_share_a_model():
    encoder = Flagged(ToyText.spec)
    model = loaded(encoder)
    expected = loaded().encode("text", TEXTS)
    found = in_threads(4, lambda: [model.encode("text", TEXTS) for _ in range(10)])
    assert encoder.faults == []
    assert all(torch.equal(rows, expected) for each in found for rows in each)


def test_two_models_of_one_encoder_take_turns():
    encoder = Flagged(ToyText.spec)
    models = [loaded(encoder), loaded(encoder)]
    in_threads(2, lambda: [model.encode("text", TEXTS) for model in models for _ in range(5)])
    assert encoder.faults == []


def test_threads_load_an_encoder_once(toys):
    model = toys.model()
    in_threads(6, lambda: model.encode("text", TEXTS))
    assert toys.Toy.loads == 1


def test_a_broken_call_leaves_the_encoder_to_others():
    class Once(ToyText):
        broken = True

        def encode(self, batch, view="pooled"):
            if self.broken:
                self.broken = False
                raise KeyError("once")
            return super().encode(batch, view)

    model = loaded(Once(ToyText.spec))
    with pytest.raises(KeyError):
        model.encode("text", TEXTS)
    done = in_threads(1, lambda: model.encode("text", TEXTS))
    assert torch.equal(done[0], loaded().encode("text", TEXTS))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_shares_the_frozen_encoder_and_gives_the_same(copied):
    model = loaded()
    rows = model.encode("text", TEXTS)
    other = copied(model)
    assert other.encoder("text").load() is model.encoder("text").load()
    assert torch.equal(other.encode("text", TEXTS), rows)


def test_a_deep_copy_has_adapters_of_its_own():
    model = loaded()
    rows = model.encode("text", TEXTS)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.adapters["text"].parameters():
            parameter.mul_(-2)
    assert torch.equal(model.encode("text", TEXTS), rows)
    assert not torch.equal(other.encode("text", TEXTS), rows)
    assert other.parts["adapter.text"].component is other.adapters["text"]


def test_a_pickle_gives_the_model_back(tmp_path):
    model = loaded()
    rows = model.encode("text", TEXTS)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - made here
    assert again.registry is model.registry
    assert torch.equal(again.encode("text", TEXTS), rows)
    assert again.scorer_part == model.scorer_part
    again.save_pretrained(tmp_path / "model")
    assert torch.equal(loaded().encode("text", TEXTS), rows)


def test_an_encoder_that_a_name_loads_does_not_travel_in_a_pickle():
    from fusemix_core.registry import registry

    for cls in (ToyImage, ToyText):
        registry.add(cls)
    model = fusemix_core.load(OLD, device="cpu")
    rows = model.encode("text", TEXTS)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - made here
    assert again.encoder("text").given is None
    assert torch.equal(again.encode("text", TEXTS), rows)


def test_an_encoder_that_the_user_gave_travels_with_its_weights(toys):
    given = toys.Toy(toys.specs["text"], torch.float32)
    lazy = toys.model(sources={"text": given}).encoder("text")
    lazy._registry = fusemix_core.registry.registry
    again = pickle.loads(pickle.dumps(lazy)).load()  # noqa: S301 - made here
    assert again is not given and torch.equal(again.net.weight, given.net.weight)


def test_a_registry_of_ones_own_says_why_it_is_not_pickled(toys):
    with pytest.raises(TypeError, match="can't be pickled"):
        pickle.dumps(toys.model())
    assert copy.deepcopy(toys.model()).registry is toys.registry


def test_locks_do_not_travel():
    encoder = ToyText(ToyText.spec)
    held = locks_of(encoder)
    assert locks_of(encoder) is held and isinstance(held, Locks)
    assert locks_of(pickle.loads(pickle.dumps(encoder))) is not held  # noqa: S301 - made here


FORK = """
import multiprocessing, os, sys, threading
sys.path.insert(0, sys.argv[2])
import torch
from torch import nn
import fusemix_core
from fusemix_core.latents.sharing import locks_of
from toys import ToyImage, ToyText

torch.set_num_threads(4)

class Wide(ToyText):
    # Products that torch shares among its threads.
    wide = torch.randn(512, 512)

    def encode(self, batch, view="pooled"):
        assert (torch.randn(512, 512) @ self.wide).isfinite().all()
        (torch.randn(4, 1_000_000).sin()).sum()
        return super().encode(batch, view)

encoder = Wide(ToyText.spec)
sources = {"image": ToyImage(ToyImage.spec), "text": encoder}
model = fusemix_core.load(sys.argv[1], encoders=sources, device="cpu")
texts = [f"text {i} " + "word " * i for i in range(8)]
rows = model.encode("text", texts)

def work():
    other = fusemix_core.load(sys.argv[1], encoders=sources, device="cpu")
    other.save_pretrained(sys.argv[3])
    found = model.encode("text", texts)
    found = model.embed("text", torch.randn(9000, 12))[:8] * 0 + found
    model.similarity(found, found, "text", "image")
    os._exit(0 if torch.allclose(found, rows) else 3)

busy, done = threading.Event(), threading.Event()
def hold():
    with locks_of(encoder).encode, locks_of(encoder).collate, model.encoder("text")._mine():
        busy.set()
        done.wait(60)

other = threading.Thread(target=hold)
other.start()
busy.wait()
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join(60)
hangs = child.is_alive()
if hangs:
    child.kill()
done.set()
other.join()
assert model.encode("text", texts).equal(rows) and torch.get_num_threads() == 4
sys.exit(9 if hangs else child.exitcode)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_encodes_while_its_parent_does(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    paths = [OLD, Path(__file__).parents[1], tmp_path / "saved"]
    done = started.run("-c", FORK, *paths, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


UNPICKLED = """
import json, pickle, sys
with open(sys.argv[1], "rb") as file:
    model, texts = pickle.load(file)
print(json.dumps(model.encode("text", texts).tolist()))
"""


def test_a_process_of_its_own_gets_the_model_by_pickle(tmp_path):
    model = loaded()
    (tmp_path / "model.pickle").write_bytes(pickle.dumps((model, TEXTS)))
    path = os.pathsep.join(part for part in sys.path if part)
    done = started.run(
        "-c", UNPICKLED, tmp_path / "model.pickle", env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert torch.equal(torch.tensor(found), model.encode("text", TEXTS))
