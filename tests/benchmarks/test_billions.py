"""docs/billions.md: what is measured is measured, and what isn't is said to be arithmetic."""

import json
from dataclasses import replace

import pytest
import started

from benchmarks.billions import PAGE, RESULT, Machines, arithmetic, measure, page, products


def test_the_page_is_made_of_the_kept_result_and_in_the_nav():
    assert PAGE.read_text() == page(json.loads(RESULT.read_text()))
    assert "billions.md" in (PAGE.parents[1] / "mkdocs.yml").read_text()
    assert "That is arithmetic." in " ".join(PAGE.read_text().split())


def test_processes_find_the_moments_of_one_and_sum_what_is_counted():
    found = measure(9_000, (1, 2), (24, 16), 4, 500, started)
    one, two = found["sweeps"]
    assert one["bytes"] == 0 and two["apart"] <= 1e-12
    first, second, counts = 2 * (24 + 16), 24 * 24 + 16 * 16 + 24 * 16, 4
    assert two["bytes"] == 8 * (first + second + counts)
    assert min(one["rate"], two["rate"], found["solve"]) > 0


def test_the_arithmetic_follows_the_machines():
    found = {"widths": [1536, 1024], "solve": 2.0, "sweeps": [{"rate": 1e4, "bytes": 4e7}]}
    seconds = {part: took for part, _, took in arithmetic(found, Machines())}
    assert seconds["read"] == pytest.approx(5e9 * 2 * 2560 / 8 / 5e9)
    assert seconds["or on CPUs"] == pytest.approx(5e9 / (1e4 * 64 * 8))
    assert seconds["solve"] == 2.0
    twice = {p: t for p, _, t in arithmetic(found, replace(Machines(), nodes=16))}
    assert all(twice[p] == pytest.approx(seconds[p] / 2) for p in ("read", "products on GPUs"))
    # at least both upper triangles and the product between modalities, at most all of both squares
    least = 1536 * 1537 / 2 + 1024 * 1025 / 2 + 1536 * 1024
    assert least < products([1536, 1024]) / 2 < 1536**2 + 1024**2 + 1536 * 1024
