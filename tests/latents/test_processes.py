"""Processes that decode: what threads leave, whatever becomes of a process."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from latents.processes import all_end, children_of_a_run

from fusemix_core.data.media import Audio
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.latents import decoders, encoding, extraction, pipeline
from fusemix_core.latents.pace import Pace
from fusemix_core.latents.store import LatentStore

pytestmark = pytest.mark.usefixtures("children_forked")
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(extraction, "shard_size", lambda items: 50)


def files(store):
    return {p.relative_to(store.folder): p.read_bytes() for p in store.folder.rglob("*.*")}


def clips(n):
    return [Audio(np.full(1 + i * 37 % 60, i / n, np.float32), 8000) for i in range(n)]


def both(toy, tmp_path, values, spec, items=None, second=2, **options):
    """(extraction, store) by threads and by two processes, or by as many as are chosen."""
    items = items or toy.ToyItems
    found = []
    for name, processes in (("threads", 0), ("processes", second)):
        store = LatentStore(tmp_path / name)
        done = toy.extracted(spec, items(values), store, processes=processes, **options)
        found.append((done, store))
    return found


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_processes_leave_the_files_that_threads_leave(toy, tmp_path, modality):
    values = clips(170) if modality == "audio" else [f"item {i}" for i in range(170)]
    for i in (3, 70, 71):
        values[i] = toy.damaged(i)
    if modality == "image":
        values[90] = "uncollatable"
    spec = toy.spec(modality=modality, sample_rate=8000 if modality == "audio" else None)
    (one, threads), (two, processes) = both(toy, tmp_path, values, spec, batch_size=8)
    assert files(threads) == files(processes)
    assert one.bad == two.bad and len(two.bad) >= 3
    assert one.warnings == two.warnings and (one.encoded, one.cached) == (two.encoded, two.cached)


def test_huge_items_are_cut_alike(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("fusemix_core.latents.cutting.BATCH_BYTES", 20_000)
    values = [np.full(1000 + 400 * (i % 9), i % 250, np.uint8) for i in range(90)]
    (_, threads), (_, processes) = both(
        toy, tmp_path, values, toy.spec(toy.OfArrays, modality="image"), batch_size=16
    )
    assert files(threads) == files(processes)


@pytest.mark.parametrize("where", ["decode", "collate"])
def test_an_item_that_ends_its_process_is_left_out(toy, tmp_path, where, monkeypatch):
    values = [f"item {i}" for i in range(60)]
    values[20] = "deadly"
    cls = toy.DeadlyEncoder if where == "collate" else toy.ToyEncoder
    items = toy.ToyItems(values) if where == "collate" else toy.DeadlyItems(values)
    done = toy.extracted(
        toy.spec(cls, modality="image"), items, LatentStore(tmp_path), batch_size=8, processes=2
    )
    assert done.bad == {20: "its decoder ended the process (signal SIGSEGV)"}
    assert done.encoded == 59


def test_a_process_that_is_killed_once_costs_nothing(toy, tmp_path, monkeypatch):
    started = decoders._Worker.__init__
    killed = []

    def watched(worker, pool):
        started(worker, pool)
        if not killed:
            killed.append(worker.child.process.pid)

    monkeypatch.setattr(decoders._Worker, "__init__", watched)
    begun = decoders.Decoders.decode

    def decode(pool, index):
        if len(killed) == 1 and pool._settled.is_set():
            killed.append(os.kill(killed[0], signal.SIGKILL))
        return begun(pool, index)

    monkeypatch.setattr(decoders.Decoders, "decode", decode)
    values = [f"item {i}" for i in range(120)]
    (_, threads), (done, processes) = both(
        toy, tmp_path, values, toy.spec(modality="image"), batch_size=8
    )
    assert len(killed) == 2 and not done.bad and files(threads) == files(processes)


def test_processes_that_all_end_are_an_error_and_no_endless_work(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(decoders, "MOST_DEATHS", 2)
    values = ["item", *(f"deadly {i}" for i in range(30))]
    with pytest.raises(FusemixError, match="3 processes that decode for toy ended"):
        toy.extracted(
            toy.spec(modality="image"), toy.DeadlyItems(values), LatentStore(tmp_path), processes=1
        )


def test_a_fault_of_the_program_is_raised_here(toy, tmp_path):
    spec = toy.spec(toy.FaultyEncoder, modality="image")
    with pytest.raises(KeyError, match="no such option"):
        toy.extracted(spec, toy.ToyItems(["a", "b"]), LatentStore(tmp_path), processes=1)


def test_threads_do_what_processes_cannot(toy, tmp_path):
    spec = toy.spec(toy.Unsendable, modality="image")
    done = toy.extracted(spec, toy.ToyItems(["a", "b"]), LatentStore(tmp_path), processes=2)
    assert done.encoded == 2
    assert "Threads decoded for toy, not processes: " in done.warnings[0]
    assert "pickle" in done.warnings[0]


@pytest.mark.parametrize("processes", [0, 1])
def test_what_decodes_leaves_the_cores_to_an_encoder_on_the_cpu(toy, tmp_path, processes):
    done = toy.extracted(
        toy.spec(modality="image"), toy.Telling(["how nice", "an item"]), LatentStore(tmp_path),
        processes=processes,
    )  # fmt: skip
    assert done.bad == {0: str(min(os.nice(0) + 10, 19))}


def test_texts_have_nothing_to_decode(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(decoders.Decoders, "__init__", None)
    toy.extracted(toy.spec(), toy.ToyItems(toy.texts(20)), LatentStore(tmp_path), processes=2)


def test_a_number_that_makes_no_sense_is_refused():
    with pytest.raises(ConfigError, match="processes is -1"):
        encoding.Encoding(processes=-1)


# -- by itself -------------------------------------------------------------------------------------


def paced(batches=20, items=1000, idle=0.5, busy=1.0, cores=8, seconds=1.0):
    """How many processes are asked for after so many batches of 8 items, each of `seconds`."""
    now = [0.0]
    pace = Pace(items, cores, clock=lambda: now[0], cpu=lambda: now[0] * busy)
    for _ in range(batches):
        now[0] += seconds
        pace.came(8, idle * seconds)
    return pace.processes()


def test_processes_start_where_decoding_holds_up_the_encoder_and_cores_are_free():
    assert paced() == 7
    assert paced(idle=0.1) == 0  # the encoder is what takes the time
    assert paced(busy=7.0) == 0  # no core is free
    assert paced(busy=0.2) == 0  # they wait for a disk
    assert paced(items=200) == 0  # nearly done
    assert paced(batches=5) == paced(seconds=0.1) == 0  # not measured yet


def test_a_run_changes_to_processes_on_the_way(toy, tmp_path, monkeypatch):
    """As soon as they are ready; what is left is the same as by threads."""
    asked, pools, handed_out = [], [], []

    def two_at_the_second_batch(pace):
        asked.append(pace)
        return 2 if len(asked) == 2 else 0

    start, decode = pipeline.Pipeline.start_processes, decoders.Decoders.decode
    monkeypatch.setattr(Pace, "processes", two_at_the_second_batch)
    monkeypatch.setattr(
        pipeline.Pipeline, "start_processes", lambda *a: pools.append(start(*a)) or pools[0]
    )
    monkeypatch.setattr(
        decoders.Decoders, "decode", lambda pool, i: handed_out.extend(i) or decode(pool, i)
    )
    values = [f"item {i}" for i in range(400)]
    values[9] = values[222] = toy.damaged(9)
    (plain, threads), (done, processes) = both(
        toy, tmp_path, values, toy.spec(modality="image"), batch_size=8, second=None,
        progress=lambda done, total: done < 50 or not pools or pools[0].wait(),
    )  # fmt: skip
    assert 200 < len(handed_out) < 360 and handed_out == sorted(handed_out)
    assert any("2 processes decoded for toy" in warning for warning in done.warnings)
    assert files(threads) == files(processes) and plain.bad == done.bad


# -- how it ends -----------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from fusemix_core.latents import extraction
from fusemix_core.userfile import import_file
from fusemix_core.latents.store import LatentStore
from latents.processes import tell_children
tell_children(forked=sys.argv[3] == "forked")
extraction.shard_size = lambda items: 64
toy = import_file(Path(sys.argv[1]))
values = [f"item {i}" for i in range(10_000)]
spec = toy.spec(modality="image", options={"delay": 0.05})
toy.extracted(spec, toy.ToyItems(values), LatentStore(Path(sys.argv[2])), batch_size=8, processes=2)
"""


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        (signal.SIGINT, "forked"),
        (signal.SIGKILL, "forked"),
        pytest.param(signal.SIGKILL, "fresh", marks=pytest.mark.long),
    ],
)
def test_no_process_is_left_however_the_parent_ends(tmp_path, how, kind):
    script = tmp_path / "run.py"
    script.write_text(CHILD)  # without a guard: a child does not import it again
    with children_of_a_run(script, HERE / "toy.py", tmp_path, kind) as (run, own):
        until = time.monotonic() + 300
        while not list(tmp_path.rglob("*.safetensors")):
            assert run.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        run.send_signal(how)
        run.wait(30)
    all_end(own)
