"""The benchmark of time to recall, on generated latents: its fits, what is kept, its figures."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from benchmarks import fits, recall, results
from benchmarks import page as pages
from benchmarks.fits import DEFAULT, PAPER, Generated
from benchmarks.harness import Bar, Options
from fusemix_core.runs.config import find_recipe


def made(seconds, trajectory, r1=10.0):
    """A kept fit; the trajectory of (seconds, R@1) scores as its R@1 does."""
    points = [[s, step, r, r] for step, (s, r) in enumerate(trajectory)]
    test = {scorer: {"r1": r1, "r5": r1, "r10": r1} for scorer in fits.SCORERS}
    pairs = {"train": 80, "validation": 10, "test": 10}
    return {"seconds": seconds, "trajectory": points, "test": test, "pairs": pairs}


def quick(folder):
    return list(recall.measure(Options(folder, quick=True)))


def test_the_quick_form_measures_every_size_and_scorer(tmp_path):
    rows = quick(tmp_path)
    for pairs in ("120", "350"):
        own = [row for row in rows if f" {pairs} pairs" in row.name]
        assert [row.name.partition(": ")[2] for row in own] == [
            "time to its recall",
            "whole fit",
            "R@1 by cosine",
            "R@1 by csls",
        ]
        assert all(math.isfinite(row.value) and row.ratio > 0 for row in own)
    lines = fits.read(tmp_path / "recall-fits.jsonl")
    assert len({fits.key(line) for line in lines}) == len(lines) == 4


def test_what_is_kept_is_not_fitted_again_and_what_lacks_is(tmp_path, monkeypatch):
    rows, kept = quick(tmp_path), tmp_path / "recall-fits.jsonl"
    again = []
    monkeypatch.setattr(fits, "timed", lambda name, *rest: again.append(name) or lines[-1])
    assert quick(tmp_path) == rows and not again
    lines = fits.read(kept)
    kept.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    assert quick(tmp_path) == rows and again == [lines[-1]["recipe"]]


def test_evaluations_are_noted_as_they_come_and_the_last_is_within_the_fit():
    found = fits.fit(find_recipe(PAPER, recall.QUICK[PAPER]), Generated().splits(0), 0)
    seconds = [point[0] for point in found["trajectory"]]
    assert [point[1] for point in found["trajectory"]] == [1, 2, 3]
    assert seconds == sorted(seconds) and seconds[-1] <= found["seconds"] + 1e-3


def test_time_to_recall_is_that_of_the_first_weights_kept_that_show_it():
    paper = made(100.0, [(50, 0.1), (70, 0.3), (99, 0.2)])
    ours = made(9.0, [(1, 0.2), (2, 0.4), (4, 0.35), (8, 0.3)])
    ours["trajectory"][1][3] = 0.1  # the R@1 of weights that their score would not keep
    assert recall.ends_at(paper) == 0.3  # that of the weights kept, not of the last evaluation
    assert recall.reaches(ours, 0.3) == 4
    row = recall.time_row("set", {}, [ours], [paper], Bar(20, at_least=True))
    assert (row.value, row.ratio) == (4, pytest.approx(25)) and row.bar.met(row.ratio)


def test_a_recall_that_some_seed_never_reaches_misses_any_bar_and_is_said():
    papers = [made(100.0, [(50, 0.3)])] * 2
    ours = [made(9.0, [(1, 0.4)]), made(9.0, [(1, 0.2)])]
    row = recall.time_row("set", {}, ours, papers, Bar(2, at_least=True))
    assert not row.bar.met(row.ratio)
    assert "not reached in 1 of 2 seeds" in row.reference


def test_intervals_are_students():
    values = [1.0, 2.5, 2.0, 4.0, 3.0]
    middle, half = recall.mean_interval(values)
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert middle == pytest.approx(np.mean(values))
    assert half == pytest.approx((high - low) / 2, rel=2e-3)
    assert recall.mean_interval([1.0]) == (1.0, None)


def test_the_ratio_of_means_has_about_the_interval_that_resampling_gives():
    generator = np.random.default_rng(0)
    of = 10 + generator.normal(0, 0.5, 10)
    values = 2 * of + generator.normal(0, 1.0, 10)
    found, half = recall.ratio_of_means(values.tolist(), of.tolist())
    drawn = generator.integers(0, 10, (20_000, 10))
    resampled = values[drawn].mean(1) / of[drawn].mean(1)
    assert found == pytest.approx(values.mean() / of.mean())
    assert half == pytest.approx(stats.t.ppf(0.975, 9) * resampled.std(), rel=0.15)


def test_a_curve_holds_what_each_seed_would_keep():
    first, second = made(8.0, [(1, 0.1), (4, 0.3), (6, 0.2)]), made(8.0, [(2, 0.2)])
    drawn = recall.curve([first, second])
    at_1, at_8 = 0, len(drawn["seconds"]) - 1
    assert drawn["seconds"][at_1] == 1 and drawn["seconds"][at_8] == 8
    assert (drawn["low"][at_1], drawn["high"][at_1]) == (0, 10)
    assert (drawn["low"][at_8], drawn["mean"][at_8], drawn["high"][at_8]) == (20, 25, 30)


def test_the_page_has_its_rows_and_a_plot_that_the_same_rows_make_again(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(pages, "PLOTS", tmp_path / "plots")
    rows = list(recall.rows_of("one", None, [made(2.0, [(1, 0.4)])], [made(90.0, [(50, 0.3)])]))
    results.save("recall", rows, threads=2)
    text = pages.page(["recall", "one that was never run"])
    assert all(f"| {row.name} |" in text for row in rows)
    assert "](benchmarks/recall.svg)" in text
    drawn = (tmp_path / "plots" / "recall.svg").read_bytes()
    assert pages.page(["recall"]) == text
    assert (tmp_path / "plots" / "recall.svg").read_bytes() == drawn


def test_the_plot_has_a_column_for_each_set_with_both_recipes():
    from matplotlib.figure import Figure

    rows = [
        row
        for name in ("one", "two")
        for size, r1 in ((None, 20.0), (40, 12.0))
        for row in recall.rows_of(
            name, size, [made(2.0, [(1, 0.4)], r1)] * 2, [made(90.0, [(50, 0.3)])] * 2
        )
    ]
    figure = Figure()
    recall.plot(rows, figure)
    assert len(figure.axes) == 4
    shown = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
    assert shown == {DEFAULT, PAPER}
