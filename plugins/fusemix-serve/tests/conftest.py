"""One server per session, started by `fusemix serve`, of toy models of images, texts and sounds."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from pairs import write_world
from started import Popen

sys.path.insert(0, str(Path(__file__).parent))  # serve_client, served_toys
from served_toys import ENCODERS  # noqa: E402


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder of images, texts and sounds, and the runs `photos` (align) and `things` (fuse)."""
    from fusemix_core import align, fuse

    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUSEMIX_HOME", str(folder / "home"))
        patch.setattr("fusemix_core.reports.figures._svg", lambda *_, **__: "<svg></svg>")
        pairs = write_world(folder / "data", 64, sounds=True)
        how = {"device": "cpu"}
        align(ENCODERS, pairs, out=folder / "photos", **how)
        two = {m: ENCODERS[m] for m in ("image", "text")}
        fuse(two, pairs, target="thing", out=folder / "things", **how)
    return folder


@pytest.fixture(scope="session")
def models(world):
    """The two models in this process: name → model."""
    import fusemix_core

    runs = {name: str(world / name / "model") for name in ("photos", "things")}
    own = {"photos": ENCODERS, "things": {m: ENCODERS[m] for m in ("image", "text")}}
    return {n: fusemix_core.load(run, device="cpu", encoders=own[n]) for n, run in runs.items()}


@pytest.fixture(scope="session")
def index(world, models):
    """The folder of an index of the images and texts."""
    from small_collection import write_index

    return write_index(world / "photos.index", world / "data" / "pairs.csv", models["photos"])


@contextmanager
def started(world, *arguments, token=""):
    """A server in a process of its own: its `url`, `process` and what it printed."""
    encoders = [f"--encoder={m}={name}" for m, name in ENCODERS.items()]
    words = ["-m", "fusemix_core.cli", "serve", *map(str, arguments), *encoders, "--device", "cpu"]
    env = os.environ | {"FUSEMIX_HOME": str(world / "home"), "FUSEMIX_TOKEN": token}
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
        process = Popen([sys.executable, *words], stdout=log, stderr=log, env=env)
        with process:
            try:
                url = _printed(process, Path(folder, "log"))
                port = int(url.split(":")[2].partition("/")[0])
                yield SimpleNamespace(url=url.rstrip("/"), process=process, port=port)
            finally:
                process.terminate()


def _printed(process, log):
    """The address that a server prints as soon as it answers."""
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text().splitlines(keepends=True):
            if line.startswith("serving: ") and line.endswith("\n"):
                return line.removeprefix("serving: ").strip()
        time.sleep(0.05)
    raise AssertionError(f"the server did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def server(world):
    """The address of a server of both models on a free port."""
    with started(world, world / "photos", world / "things", "--port", "0") as found:
        yield found.url


@pytest.fixture(scope="session")
def start(world):
    """`start(*runs, token="")`: a server of its own for a test, which ends it."""

    def start(*runs, token="", port=0):
        return started(world, *(world / name for name in runs), "--port", port, token=token)

    return start
