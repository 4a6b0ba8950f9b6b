"""The benchmark of re-rankers: which tokens it gives them, and how it sums up its fits."""

import torch

from benchmarks.rerank import CASES, first
from benchmarks.rerank_page import draw_layers, table
from fusemix_core.paired import ResidentTokens


def line(case, seed, before, after):
    weights = {"image": [[0.7, 0.3], [0.6, 0.4]], "text": [[0.2, 0.8], [0.5, 0.5]]}
    return {"case": case, "seed": seed, "r1": [before, after], "r5": [50.0, 51.0], "alpha": 0.25,
            "ms": 3.0, "cpu_seconds": 20.0, "layers": weights}  # fmt: skip


def test_the_first_tokens_and_their_last_layer():
    latents = torch.arange(24.0).view(6, 4)
    short = first(ResidentTokens(latents, torch.tensor([3, 0, 1, 2])), most=2, width=2)
    found = short.rows(torch.tensor([0, 1, 2]))
    assert found.mask.sum(dim=1).tolist() == [2, 0, 1]
    assert torch.equal(found.values[0], latents[:2, 2:])
    assert torch.equal(found.values[2, 0], latents[3, 2:])


def test_cases_are_compared_on_the_seeds_that_both_have():
    fits = [("focus", 0, 20, 22), ("focus", 1, 24, 25), ("hard", 1, 24, 24.5)]
    found = {case: {} for case, *_ in fits}
    for case, seed, before, after in fits:
        found[case][seed] = line(case, seed, before, after)
    rows = table(found)
    focus = next(row for row in rows if row.startswith(f"| {CASES['focus'].title} | 2 |"))
    assert "| 22.0 | 23.5 | +1.50 ± 6.35 |" in focus
    assert f"| {CASES['focus'].title}: {CASES['hard'].title} | 1 | +0.50 |" in rows


def test_the_picture_of_layers_is_the_same_for_the_same_fits(tmp_path):
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "fusemix"}):
        for name in ("a.svg", "b.svg"):
            draw_layers({0: line("static", 0, 20, 21)}, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
