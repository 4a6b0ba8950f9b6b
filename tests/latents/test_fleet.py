"""A process for each device: together they leave what one does."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from latents.processes import all_end, children_of_a_run

from fusemix_core.errors import FusemixError
from fusemix_core.latents import extraction, fleet
from fusemix_core.latents.fleet_worker import Joined
from fusemix_core.latents.store import LatentStore
from fusemix_core.userfile import import_file

pytestmark = pytest.mark.usefixtures("children_forked")
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def by_processes(monkeypatch):
    """What two GPUs would do, by two CPUs."""
    monkeypatch.setattr(extraction, "shard_size", lambda items: 64)
    whether = fleet.processes_for

    def as_if_gpus(held, items):
        kept, held.devices = held.devices, [torch.device("cuda", i) for i in range(2)]
        try:
            return whether(held, items) and len(kept) > 1
        finally:
            held.devices = kept

    monkeypatch.setattr(extraction, "processes_for", as_if_gpus)


def extracted(toy, values, store, spec=None, devices=2, **options):
    return toy.extracted(
        spec or toy.spec(), toy.ToyItems(values), store, device=["cpu"] * devices, **options
    )


def rows(done):
    return done.table.rows(torch.arange(len(done.table)))


@pytest.mark.parametrize("view", [pytest.param("pooled", marks=pytest.mark.long), "tokens"])
def test_two_processes_leave_the_latents_of_one(toy, tmp_path, view):
    values = toy.texts(400)
    for i in (3, 150, 399):
        values[i] = toy.damaged(i)
    values[77] = "uncollatable"
    seen = []
    options = {"view": view, "store_dtype": "float32", "batch_size": 8}
    two = extracted(
        toy, values, LatentStore(tmp_path / "two"), progress=lambda *a: seen.append(a), **options
    )
    one = extracted(toy, values, LatentStore(tmp_path / "one"), devices=1, **options)
    assert toy.ToyEncoder.loads == 1  # of the two none was loaded here
    assert two.bad == one.bad and len(two.bad) == 4
    assert (two.encoded, two.warnings) == (one.encoded, one.warnings)
    assert seen[0] == (0, 400) and seen[-1] == (400, 400) and seen == sorted(seen)
    good = torch.tensor([i for i in range(400) if i not in one.bad])
    a, b = (done.table.rows(good) for done in (two, one))
    if view == "tokens":
        assert torch.equal(a.mask, b.mask)
        a, b = a.filled(), b.filled()
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_what_one_process_left_the_next_run_does_not_encode_again(toy, tmp_path):
    values, store = toy.texts(200), LatentStore(tmp_path)
    toy.extracted(toy.spec(), toy.ToyItems(values[:120]), store, batch_size=8)
    done = extracted(toy, values, store, batch_size=8)
    assert (done.encoded, done.cached) == (80, 120) and len(done.table) == 200


@pytest.mark.slow
def test_both_encode_and_each_may_decode_in_processes(toy, tmp_path):
    spec = toy.spec(toy.Signing, modality="image", options={"delay": 0.3})
    done = extracted(
        toy, [f"item {i}" for i in range(200)], LatentStore(tmp_path), spec, batch_size=8,
        processes=1, store_dtype="float32",
    )  # fmt: skip
    assert len(rows(done)[:, 0].unique()) == 2


def test_errors_of_a_process_are_raised_here(toy, tmp_path):
    spec = toy.spec(toy.FaultyEncoder)
    with pytest.raises(KeyError, match="no such option"):
        extracted(toy, toy.texts(50), LatentStore(tmp_path), spec, batch_size=4)
    with pytest.raises(FusemixError, match="None of the 3 text items could be read"):
        extracted(toy, [toy.damaged(i) for i in range(3)], LatentStore(tmp_path), batch_size=1)


def test_a_process_that_ends_is_an_error_that_keeps_finished_shards(toy, tmp_path):
    store, values = LatentStore(tmp_path), [f"item {i}" for i in range(600)]
    values[590] = "deadly"
    with pytest.raises(FusemixError, match=r"encoded on cpu ended \(signal SIGSEGV\)") as error:
        extracted(toy, values, store, toy.spec(toy.DeadlyEncode), batch_size=8)
    assert "Finished shards are kept" in error.value.hint
    assert list(store.folder.rglob("*.safetensors"))


def test_a_process_that_leaves_by_itself_is_not_taken_for_killed(toy, tmp_path):
    file = tmp_path / "leaves.py"
    file.touch()
    import_file(file)
    file.write_text("raise SystemExit('no licence')")  # each process imports it, too
    with pytest.raises(FusemixError, match=r"encoded on cpu ended \(exit status 1\)"):
        extracted(toy, toy.texts(50), LatentStore(tmp_path), batch_size=4)


def test_an_encoder_that_only_this_process_has_stays_here(toy, tmp_path):
    done = extracted(toy, toy.texts(20), LatentStore(tmp_path), encoder=toy.ToyEncoder(toy.spec()))
    assert done.encoded == 20 and len(toy.ToyEncoder.batches) >= 1


def test_joined_items_are_those_of_their_parts(toy):
    values = [f"item {i}" for i in range(30)]
    joined = Joined([toy.ToyItems(values[a:b]) for a, b in ((0, 7), (7, 8), (8, 30))])
    assert [joined.load(i) for i in range(30)] == values
    index = np.array([29, 3, 4, 7, 8, 6])
    some = joined.select(index)
    assert [some.load(i) for i in range(6)] == [values[i] for i in index]
    assert some.describe(3) == "item 7" and some.select(np.array([5, 0])).load(0) == "item 6"


CHILD = """
import sys
from pathlib import Path
from fusemix_core.latents import extraction
from fusemix_core.latents.store import LatentStore
from fusemix_core.userfile import import_file
from latents.processes import tell_children
tell_children(forked=True)
toy = import_file(Path(sys.argv[1]))
extraction.processes_for = lambda held, items: True
extraction.shard_size = lambda items: 64
spec = toy.spec(options={"delay": 0.05})
toy.extracted(spec, toy.ToyItems(toy.texts(9000)), LatentStore(Path(sys.argv[2])), batch_size=8,
              device=["cpu", "cpu"])
"""


def test_no_process_is_left_after_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(CHILD)
    with children_of_a_run(script, HERE / "toy.py", tmp_path) as (run, own):
        until = time.monotonic() + 300
        while not list(tmp_path.rglob("*.safetensors")):
            assert run.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        run.kill()
        run.wait(30)
    all_end(own)
