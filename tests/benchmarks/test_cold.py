"""The benchmark of a text query from a process that has just started."""

import subprocess

import pytest

from benchmarks import cold
from benchmarks.harness import Options


def test_what_a_process_spends_is_its_own():
    busy = cold.spend(["-c", "sum(range(10**7))"])
    asleep = cold.spend(["-c", "import time; time.sleep(0.5)"])
    assert asleep.wall >= 0.5 and 0 < asleep.processor < busy.processor <= busy.wall + 0.1
    with pytest.raises(subprocess.CalledProcessError):
        cold.spend(["-c", "1 / 0"])


@pytest.mark.long
def test_the_quick_form_finds_the_query_network_quicker_than_the_model(tmp_path):
    pytest.importorskip("fusemix_starter")
    pytest.importorskip("openvino")
    rows = {row.name: row.value for row in cold.measure(Options(tmp_path, quick=True))}
    assert 2 * rows["by the query network, processor"] < rows["by the model, processor"]
    assert rows["by the query network, processor"] < rows["import torch, processor"]
