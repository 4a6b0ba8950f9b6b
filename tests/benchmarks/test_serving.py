"""The benchmark of a server under load, for a second, with few clients."""

import pytest

from benchmarks import serving
from benchmarks.harness import Options

pytest.importorskip("fusemix_serve")
pytest.importorskip("fusemix_starter")


def test_a_percentile_is_a_time_that_so_many_answers_took():
    found = serving.Load([float(i) for i in range(100)])
    assert found.percentile(0.5) == 50 and found.percentile(0.99) == 99
    assert serving.Load([7.0]).percentile(0.99) == 7


@pytest.mark.long
def test_the_quick_form_measures_without_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "QUICK_SECONDS", 1.0)
    rows = {row.name: row for row in serving.measure(Options(tmp_path, quick=True))}
    assert rows["Errors"].value == 0 and rows["8 clients: answers per second"].value > 0
    assert rows["8 clients: p99"].value >= rows["8 clients: median"].value > 0
    assert rows["Memory at the end"].value > 10
