"""What the benchmarks share: turns, bars, kept results, and the page made from them."""

import itertools
import time

import pytest

from benchmarks import page as pages
from benchmarks import results
from benchmarks.__main__ import BENCHMARKS
from benchmarks.harness import Bar, Row, interleaved, ratio


def test_forms_run_in_turn_and_warm_ups_do_not_count():
    order = []
    forms = {name: (lambda name=name: order.append(name)) for name in "abc"}
    seconds = interleaved(forms, repeats=3, warmups=1)
    assert order == list("abc") * 4
    assert [len(turns) for turns in seconds.values()] == [3, 3, 3]


def test_the_ratio_is_a_median_over_turns_so_that_one_bad_turn_does_not_count():
    seconds = {"ours": [2.0, 4.0, 300.0], "theirs": [1.0, 2.0, 3.0]}
    assert ratio(seconds, "ours", "theirs") == 2.0


@pytest.mark.parametrize(
    ("bar", "value", "met"),
    [
        (Bar(1.1), 1.1, True),
        (Bar(1.1), 1.11, False),
        (Bar(300, at_least=True), 300, True),
        (Bar(300, at_least=True), 299, False),
    ],
)
def test_a_bar_that_is_missed_is_said_where_it_is_printed_and_on_the_page(bar, value, met, capsys):
    row = Row("what", 1.0, "s", "the reference", value, bar)
    results.print_row(row)
    printed, shown = capsys.readouterr().out, "\n".join(pages.table([row]))
    assert ("MISSED" in printed) == ("MISSED" in shown) == (not met)
    assert str(bar) in printed and str(bar) in shown


def test_kept_rows_come_back_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    rows = [
        Row("a", 1.5, "s", "b", 0.5, Bar(2, at_least=True), {"sizes": [1, 2]}),
        Row("alone", 3.0, "MB"),
    ]
    results.save("some", rows, threads=2)
    machine, found = results.read("some")
    assert found == rows
    assert machine["threads"] == 2
    assert results.read("other") is None


@pytest.mark.slow
def test_the_page_is_made_from_the_kept_results(tmp_path, monkeypatch):
    """Run `python -m benchmarks --page` where this fails."""
    monkeypatch.setattr(pages, "PLOTS", tmp_path)
    assert pages.PAGE.read_text() == pages.page(BENCHMARKS)


def test_every_plot_of_the_page_is_kept():
    for line in pages.PAGE.read_text().splitlines():
        if line.startswith("!["):
            assert (pages.PAGE.parent / line.split("(")[1].rstrip(")")).exists(), line


def test_times_are_wall_times():
    waits = itertools.repeat(0.02)
    seconds = interleaved({"wait": lambda: time.sleep(next(waits))}, repeats=2, warmups=0)
    assert all(0.02 <= s < 2 for s in seconds["wait"])
