"""Tests of fusemix and of its plugins run offline, in one thread, with a fusemix home each."""

import gc
import itertools
import math
import os
import random
import shutil
import sys
import tempfile
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["budget", "shuffled"]
ROOT = Path(__file__).parent
DRAWN = tuple(str(ROOT / "tests" / name) for name in ("reports", "docs", "kit", "cli/test_rank.py"))
imported = 0

# Without a deadline, as machines are busy; `--hypothesis-profile default` draws more examples.
settings.register_profile("fusemix", deadline=None, max_examples=40)
settings.load_profile("fusemix")

# A fifth of the suite's time goes into files: they stay in memory if there is room.
MEMORY, ROOM = Path("/dev/shm"), 8 << 30  # noqa: S108  pytest makes folders of its own in it
if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)

# Before torch is imported. With one thread a test worker leaves the other cores to other workers.
os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def homes(tmp_path_factory):
    """Folders that do not exist yet. (`mktemp` looks through those of all tests before.)"""
    folder = tmp_path_factory.mktemp("homes")
    return (str(folder / str(number)) for number in itertools.count())


@pytest.fixture(autouse=True, scope="session")
def shared_home(homes):
    """The home of fixtures that several tests share: none encodes what another has encoded."""
    with pytest.MonkeyPatch.context() as patch:
        home = next(homes)
        patch.setenv("FUSEMIX_HOME", home)
        yield home


@pytest.fixture(autouse=True)
def own_home(homes, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", next(homes))


@pytest.fixture(autouse=True)
def same_draws():
    """A test that draws without a seed draws the same each time, in any order of tests."""
    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def run_by_torch():
    """Whether compiling an encoder pays is estimated by the clock: on a busy machine it would for a
    few items, and takes ten seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fusemix_core.latents.backends.EXPORT_SECONDS", math.inf)
        yield


@pytest.fixture(autouse=True, scope="session")
def operators_read_once():
    """At each export torch reads half a thousand operators of onnxscript, from the source files of
    their functions, in more time than a small network takes."""
    import torch

    real = torch.onnx.export

    def export(*args, **options):
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        patch.setattr(torch.onnx, "export", real)
        read_once = staticmethod(cache(ONNXRegistry.from_torchlib))
        patch.setattr(ONNXRegistry, "from_torchlib", read_once)
        return real(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", export)
        yield


@pytest.fixture(autouse=True, scope="session")
def unflushed():
    """No file is forced to the disk, which takes milliseconds and a run does a dozen times.
    Processes of tests/crash do it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def own_files():
    """Files that a test has imported from its folder are forgotten after it. Each process that a
    run starts would import them, as they are by then."""
    before = len(sys.modules)
    yield
    for name in [*sys.modules][before:]:
        file = getattr(sys.modules[name], "__file__", None)
        if name.startswith("fusemix_user_") and not str(file).startswith(str(ROOT)):
            del sys.modules[name]


def state():
    """What the tests of a process share, and a fixture may leave changed."""
    import torch

    from fusemix_core.reports import figures

    mode = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
    return {
        **{k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"},
        "folder": os.getcwd(),
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), *mode),
        "figures": figures._svg,
    }


@pytest.fixture(autouse=True, scope="session")
def first_state(shared_home):
    return state()


@pytest.fixture(autouse=True, scope="module")
def nothing_left_changed(first_state):
    """The fixtures of a module and those of the session that it was the first to use undo what they
    patch: whichever file comes next finds things as they were. Libraries may add variables."""
    yield
    now = state()
    changed = {k: (v, now.get(k)) for k, v in first_state.items() if now.get(k) != v}
    assert not changed


@pytest.fixture(autouse=True, scope="module")
def no_figures(request, nothing_left_changed):
    """Reports without figures, which take half of a small run's time, but where they are tested.
    Of a module, so that its own fixtures draw none either."""
    with pytest.MonkeyPatch.context() as patch:
        if not str(request.path).startswith(DRAWN):
            patch.setattr("fusemix_core.reports.figures._svg", lambda *_, **__: "<svg></svg>")
        yield


@pytest.fixture
def own_registry(monkeypatch):
    """What a test registers is gone after it."""
    from fusemix_core.registry import registry

    registry.load()
    places = [(registry, "_components"), (registry, "_modalities")]
    for shelf in (registry._encoders, registry._generators):
        places += [(shelf, "specs"), (shelf, "families")]
    for owner, name in places:
        kept = {key: dict(by) for key, by in getattr(owner, name).items()}
        monkeypatch.setattr(owner, name, defaultdict(dict, kept))
    monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(registry, "files", [])


def pytest_configure(config):
    import started

    if not hasattr(config, "workerinput"):
        started.serve()
        if config.getoption("tx", None):  # with pytest-xdist
            started.fork_workers()
    started.fork_spawned()


def pytest_collection_finish():
    freeze_imports()


def pytest_runtest_logfinish():
    if len(sys.modules) > imported + 50:
        freeze_imports()


def freeze_imports():
    """What tests import stays: no collection of garbage need look at it again, as each run asks for
    some when it lets go of an encoder."""
    global imported
    imported = len(sys.modules)
    gc.collect()
    gc.freeze()
