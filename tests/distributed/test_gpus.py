"""Which GPU a process gets, and that no two get the same."""

from types import SimpleNamespace

import pytest
import torch
from distributed.processes import run_in_processes

from fusemix_core.engine import distributed
from fusemix_core.errors import ConfigError
from fusemix_core.launch import Launch


@pytest.fixture
def gpus(monkeypatch):
    """A process whose launcher says so, of a fit that is joined, on a machine that shows GPUs."""
    chosen = []

    def show(count, local_rank):
        monkeypatch.setattr(
            torch,
            "accelerator",
            SimpleNamespace(
                is_available=lambda: True,
                current_accelerator=lambda: torch.device("cuda"),
                device_count=lambda: count,
            ),
        )
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        monkeypatch.setattr(distributed, "launched", lambda: Launch(local_rank, local_rank, 4))
        monkeypatch.setattr(distributed, "processes", lambda: 4)
        return chosen

    return show


@pytest.mark.parametrize(("count", "local_rank", "number"), [(4, 3, 3), (1, 3, 0), (2, 1, 1)])
def test_a_task_takes_its_gpu_among_those_it_is_shown(gpus, count, local_rank, number):
    chosen = gpus(count, local_rank)
    with distributed.joined(torch.device("cuda")) as device:
        assert device == torch.device("cuda", number)
    assert chosen == [device]


def share_names(folder, cases):
    for name, names in cases.items():
        try:
            distributed.check_own(names[distributed.rank()])
        except ConfigError as error:
            (folder / f"{distributed.rank()}.{name}").write_text(error.hint)


def test_two_processes_on_one_gpu_are_refused_in_both(tmp_path):
    run_in_processes(2, share_names, tmp_path, {"two": ("a 0", "a 1"), "one": ("a 0", "a 0")})
    assert not list(tmp_path.glob("*.two"))
    hints = [p.read_text() for p in tmp_path.glob("*.one")]
    assert len(hints) == 2 and all("--nproc-per-node" in hint for hint in hints)
