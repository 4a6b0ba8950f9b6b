"""docs/scaling.md and the packaged advice: from kept lines to sentences that can be relied on."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
from benchmarks_lines import METHODS, line, lines_of
from pairs import write_world

from benchmarks.scaling import __main__ as command
from benchmarks.scaling import advice, figures, tables
from benchmarks.scaling.about import About, configured, tuning
from benchmarks.scaling.cells import CLOSED, GRADIENT, settings_of
from benchmarks.scaling.page import draw, page, tuning_section
from benchmarks.scaling.paired import difference
from benchmarks.scaling.speed import has_course, held, races
from fusemix_core import bench
from fusemix_core.benchmark.advice import TABLE, read_places
from fusemix_core.benchmark.summary import summarise

ABOUT = About(
    {
        "icons": {"about": "Drawings and words.", "shaped": True},
        "places": {"shaped": False},
        "icons-20": {"of": "icons", "case": "swapped pairs", "level": "20%"},
    }
)
ROOT = Path(__file__).parents[2]
TOYS = ROOT / "tests/toys.py"


def page_of(lines, hard=()):
    return page(lines, hard, ABOUT, advice.places(lines, ABOUT, {}))


def cells_of(lines):
    return tables.differences(settings_of(lines))


def entries(lines):
    return {e.method: e for e in summarise(lines)}


def row_of(text, start):
    """The cells of the first row of a table that begins so."""
    row = next(r for r in text.splitlines() if r.startswith(f"| {start} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


# -- what is committed -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_is_made_from_the_kept_results():
    """Run `python -m benchmarks.scaling` where this fails."""
    text = command.page_text()
    assert text == (command.PAGE.read_text() if command.PAGE.exists() else None)
    if text is not None:
        assert "scaling.md" in (ROOT / "mkdocs.yml").read_text()
        assert "scaling.md" in (ROOT / "docs/recipes.md").read_text()


@pytest.mark.slow
def test_the_packaged_advice_is_made_from_the_kept_results():
    """Run `python -m benchmarks.scaling` where this fails."""
    assert TABLE.read_text() == command.packaged_table()


def test_the_command_writes_page_and_figures_of_other_results(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "results" / "scaling"
    folder.mkdir(parents=True)
    made = lines_of(seeds=(0,), sizes=(1000,))
    folder.joinpath("results.jsonl").write_text("\n".join(map(json.dumps, made)) + "\n")
    before = TABLE.read_text()
    args = ["x", "--results", str(tmp_path / "results"), "--page", str(tmp_path / "docs/page.md")]
    monkeypatch.setattr("sys.argv", args)
    command.main()
    text = (tmp_path / "docs/page.md").read_text()
    for image in [part.split(")")[0] for part in text.split("](")[1:] if ".svg" in part]:
        assert (tmp_path / "docs" / image).exists(), image
    assert TABLE.read_text() == before


def test_without_results_there_is_no_page(tmp_path, monkeypatch, capsys):
    args = ["x", "--results", str(tmp_path), "--page", str(tmp_path / "page.md")]
    monkeypatch.setattr("sys.argv", args)
    command.main()
    assert "no lines yet" in capsys.readouterr().out
    assert not (tmp_path / "page.md").exists()


@pytest.mark.slow
def test_lines_of_a_real_benchmark_are_understood(tmp_path):
    """Their form is that of the made-up lines of the other tests."""
    toys = {
        "source": str(write_world(tmp_path / "w", 120)),
        "encoders": {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"},
    }
    network = ["training.epochs=4", "adapter.blocks=1", "dim=8"]
    auto = {"label": "auto", "recipe": "cca"}  # faster than the real one
    trained = {"label": "fusemix", "recipe": "fusemix", "set": network}
    given = {"seeds": 2, "train": [40], "methods": [auto, "procrustes", trained]}
    made = bench({**given, "limit": {"times": 1}, "sets": {"toys": toys}}, tmp_path / "out")
    spoilt = {**given, "methods": [auto], "seeds": 1, "sets": {"toys": {**toys, "wrong": 0.4}}}
    hard = bench(spoilt, tmp_path / "hard")
    text = page_of(made, hard)
    assert "## toys: ToyImage + ToyText" in text and "| 40 |" in text
    assert all("[" in c for c in row_of(text.split("minus, by the")[1], "`procrustes`")[1:])
    (found,) = races(settings_of(made))
    assert not found.bound and 0 < found.end <= 100
    assert all(has_course(line) for line in made) and "1 times the CPU time" in text
    assert len(draw(made, tmp_path / "figures")) == 2


# -- recall and differences ------------------------------------------------------------------------


def test_what_was_not_measured_is_said_and_nothing_put_in_its_place():
    made = lines_of(sizes=(1000, 10000))
    made = [n for n in made if (n["method"], n["size"]) != ("sail", 10000)]
    made = [n for n in made if (n["method"], n["seed"]) != ("csa", 2)]
    text = page_of(made)
    assert row_of(text, "`sail`")[-1] == tables.NOT_MEASURED
    assert "10,000" in text and "100,000" not in text
    entry = next(e for e in summarise(made) if e.method == "csa")
    assert len(entry.lines) == 2


def test_a_set_with_the_default_only_and_one_without_it():
    text = page_of(lines_of(methods=["auto"]) + lines_of(("places",), methods=["csa", "fusemix"]))
    assert "`auto` was not measured beside another method." in text
    assert "Not measured: `auto` and `fusemix` have no set in common." in text


def test_sizes_count_the_pairs_to_fit_on_if_the_validation_split_is_whole():
    parts, whole = lines_of(), lines_of(whole_validation=True)
    assert settings_of(parts)[0].sizes[0].pairs == 1000
    assert settings_of(whole)[0].sizes[0].pairs == 900
    assert "the validation split is whole" in page_of(whole)
    assert "the validation split is whole" not in page_of(parts)


def test_the_default_below_another_is_marked_and_listed_and_the_bar_missed():
    made = lines_of(methods=["auto", "csa"])
    worse = [line("icons", 1000, s, "auto", recall=0.05) for s in (0, 1, 2)]
    made = [n for n in made if (n["method"], n["size"]) != ("auto", 1000)] + worse
    text = page_of(made)
    assert "in **2** of 4 comparisons" in text and "**MISSED** (bar: 0)" in text
    assert "by the chosen scorer: `csa`, −" in text
    minus = [r for r in text.splitlines() if r.startswith("| `csa` |") and "[" in r]
    assert all(
        tables.BELOW in r.split("|")[2] and tables.BELOW not in r.split("|")[3] for r in minus
    )
    assert len(minus) == 2


def test_a_lead_within_the_noise_counts_for_nobody():
    made = [line("icons", 1000, 0, m, recall=r) for m, r in (("auto", 0.2), ("csa", 0.203))]
    (_, _, _, _, found), _ = cells_of(made)
    assert found.mean <= 0 and not found.below and not found.above
    assert "met (bar: 0)" in page_of(made)


def test_lines_without_hits_are_compared_seed_by_seed_if_each_has_its_own_test_items():
    made = [{k: v for k, v in n.items() if k != "hits"} for n in lines_of(sizes=(1000,))]
    own = entries(made)
    found = difference(own["auto"], own["csa"], "chosen")
    each = [own["auto"].values("cosine")[s] - own["csa"].values("cosine")[s] for s in (0, 1, 2)]
    assert found.mean == pytest.approx(sum(each) / 3)
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(found.mean) and low < found.mean
    shared = entries([{**n, "test_items": "the same"} for n in made])
    assert difference(shared["auto"], shared["csa"], "chosen").interval is None
    assert "more have no interval" in page_of([{**n, "test_items": "the same"} for n in made])


def test_methods_without_a_seed_in_common_are_not_compared():
    made = lines_of(seeds=(0,), methods=["auto"]) + lines_of(seeds=(1,), methods=["csa"])
    assert cells_of(made) == []


def test_seconds_are_of_the_processor_unless_a_fit_lacks_them_or_had_a_gpu():
    made = lines_of(sizes=(1000,), seeds=(0,))
    lacks = [{k: v for k, v in n.items() if k != "cpu_seconds"} for n in made[:1]] + made[1:]
    gpu = [n | {"environment": {"cpu": "a", "cpus": 2, "gpus": ["b"]}} for n in made]
    for lines, own, seconds in ((made, "CPU time", 1), (lacks, "clock", 9), (gpu, "clock", 9)):
        assert own in " ".join(page_of(lines).split("Which method")[0].split())
        (at,) = settings_of(lines)[0].sizes
        assert at.entries["auto"].seconds == seconds
        assert held(at.entries["auto"].lines[0])[-1][0] == seconds


# -- who overtakes whom ----------------------------------------------------------------------------


def test_families_follow_from_the_recipe():
    (at,) = settings_of(lines_of(sizes=(1000,)))[0].sizes
    assert at.family(GRADIENT) == ["fusemix", "sail"]
    assert at.family(CLOSED) == ["linear CCA", "kcca", "csa"]


def test_overtaking_names_the_first_size_beyond_the_noise():
    made = lines_of(sizes=(1000, 10000, 100000, 1000000))
    text = "\n".join(tables.overtaking(settings_of(made)))
    # 12 + 14 a tenfold passes 19 + 9 a tenfold at 10^1.4 times 1,000
    assert "| `fusemix` | **from 100,000 pairs: +" in text and "against `kcca`" in text
    assert "| `sail` | not up to 1,000,000 pairs: " in text
    short = "\n".join(tables.overtaking(settings_of(lines_of())))
    assert "| `fusemix` | not up to 10,000 pairs: −" in short and "**" not in short


# -- time to recall --------------------------------------------------------------------------------


def course(points, seconds, method, seed=0):
    points = [[9 * point[0], *point] for point in points]
    own = {"trajectory": points, "cpu_seconds": seconds}
    return line("icons", 1000, seed, method) | own


def test_the_time_is_that_of_what_would_be_kept():
    ours = [[0.5, 1, 9.0, 50.0], [1.0, 2, 30.0, 40.0], [2.0, 3, 20.0, 60.0]]
    theirs = [[10.0, 1, 18.0, 10.0], [90.0, 2, 15.0, 20.0], [100.0, 3, 17.0, 19.0]]
    (found,) = races(settings_of([course(ours, 3, "auto"), course(theirs, 120, "fusemix")]))
    assert found.end == 17.0  # its last evaluation, as what it keeps has 15
    assert found.until == 2.0  # 30 at 1 s is not what would be kept
    assert found.ratio == pytest.approx(60)
    assert found.own == pytest.approx(5)  # it had 18 after 10 s
    assert not found.bound


def test_a_variant_of_the_published_recipe_does_not_stand_for_it():
    made = lines_of(methods=["auto", "fusemix"])
    made = [n | {"method": n["method"].replace("fusemix", "small MLP")} for n in made]
    assert races(settings_of(made)) == []


def test_a_recall_never_reached_is_a_missed_bar_and_not_in_the_mean():
    low, high = [[0.1, 1, 5.0, 5.0]], [[0.1, 1, 50.0, 50.0]]
    made = [course(high, 1, "auto"), course([[1000.0, 1, 20.0, 20.0]], 1000, "fusemix")]
    made += [course(low, 1, "auto", 1), course([[1000.0, 1, 20.0, 20.0]], 1000, "fusemix", 1)]
    (found,) = races(settings_of(made))
    assert found.ratio is None and found.missed == 1 and len(found.ratios) == 1
    text = page_of(made)
    assert "never in 1 of 2 seeds" in text and "**MISSED**" in text.split("Time to the recall")[1]


def test_without_a_trajectory_the_whole_fit_is_a_bound():
    made = [n | {"trajectory": None} for n in lines_of(sizes=(1000,), seeds=(0,))]
    (found,) = races(settings_of(made))
    assert found.bound and found.until == 1.0 and found.ratio == pytest.approx(60)
    text = page_of(made)
    assert "at most 1 s" in text and "at least 60" in text


def test_the_bars_are_judged_on_the_geometric_mean_and_on_every_size():
    made = lines_of(sizes=(1000, 100000), seeds=(0,))
    for one in made:
        if one["method"] == "auto":
            one["trajectory"] = [[0.9, 0.1, 1, 99.0, 99.0]]
    found = races(settings_of(made))
    mean = math.exp(sum(math.log(r.ratio) for r in found) / 2)
    text = page_of(made)
    assert mean == pytest.approx(600 * 10)
    assert "over 2 of 2 sets and sizes: 6,000 times sooner. Bar ≥ 300: met" in text
    assert "in 1 of 2 sets and sizes. Bar ≥ 1.5 everywhere: **MISSED**" in text
    assert "- icons, 100,000 pairs: 1." in text


def test_a_published_fit_that_a_limit_cut_says_so():
    made = lines_of(sizes=(1000,), seeds=(0,), limit={"steps": 50, "own_steps": 200})
    text = page_of(made)
    assert "60 s (25% of its own steps)" in text and "- In 1 of 1 a limit" in text
    assert "of its own steps" not in page_of(lines_of(sizes=(1000,), seeds=(0,)))


def test_recall_within_its_time_is_of_validation_where_the_default_takes_longer():
    ours = [[1.0, 1, 24.0, 24.0], [200.0, 2, 60.0, 60.0]]
    theirs = [[100.0, 1, 16.0, 16.0]]
    (found,) = races(settings_of([course(ours, 200, "auto"), course(theirs, 100, "fusemix")]))
    assert found.recall == pytest.approx(1.5) and found.recall_on == "validation"


def test_more_than_100_percent_is_called_a_ceiling():
    made = [line("icons", 1000, 0, m, recall=0.9) for m in ("auto", "fusemix")]
    assert "1.5 times would be more than 100%: a ceiling" in page_of(made)


# -- the other sections ----------------------------------------------------------------------------


def test_zero_shot_behind_linear_cca_is_a_missed_bar():
    made = lines_of(sizes=(1000,))
    assert "in 0 of 1: met" in page_of(made)
    for one in made:
        if one["method"] == "auto":
            one["zero_shot"] = {"clothing10": {"cosine": {"top1": one["seed"]}}}
    text = page_of(made)
    assert "in 1 of 1: **MISSED**" in text and "▼ |" in text.split("## Zero-shot")[1]


def test_hard_cases_show_what_is_left_of_the_clean_recall():
    hard = [line("icons", 1000, 0, m, recall=0.4) for m in ("auto", "csa")]
    hard += [
        line("icons-20", 1000, 0, m, recall=r) | {"wrong": 0.2}
        for m, r in (("auto", 0.1), ("csa", 0.3))
    ]
    text = page_of(lines_of(), hard).split("## Hard cases")[1]
    assert "### icons: swapped pairs" in text and "20% (1,000 pairs)" in text
    auto, csa = row_of(text, "`auto`"), row_of(text, "`csa`")
    assert auto[2].endswith("%)") and int(auto[2].split("(")[1][:-2]) < 35
    assert csa[2].startswith("**") and csa[2].endswith("▼") and "▼" not in csa[1]


def test_which_sets_shaped_the_default_is_said_of_each():
    text = page_of(lines_of(("icons", "places", "elsewhere"))).split("## What shaped")[1]
    looked, confirm, unstated = text.splitlines()[2:5]
    assert "`icons`" in looked and "`places`" in confirm and "`elsewhere`" in unstated


def test_settings_of_the_others_come_from_the_configs(tmp_path):
    path = tmp_path / "scaling.toml"
    path.write_text('methods = ["auto", "fusemix"]\nmethods_file = "chosen.toml"')
    chosen = 'methods = [{label = "fusemix, tuned", recipe = "fusemix", set = ["dim=256"]}]'
    (tmp_path / "chosen.toml").write_text(chosen)
    (tmp_path / "tuned.toml").write_text(
        'limit = 120\nmethods = ["fusemix", {label = "b", recipe = "fusemix", set = ["dim=256"]}]\n'
        "[sets.icons]\n[sets.openstax]"
    )
    methods, how = configured(path), tuning(tmp_path / "tuned.toml")
    assert [m.label for m in methods] == ["auto", "fusemix", "fusemix, tuned"]
    text = "\n".join(tuning_section(methods, how))
    assert "120 s a fit, 1 seed, on `icons` and `openstax`" in " ".join(text.split())
    assert "| `fusemix, tuned` | `fusemix` | `dim=256` | 2 |" in text
    assert "| `fusemix` | `fusemix` | as registered | 1 |" in text and "`auto` |" not in text
    assert configured(tmp_path / "none.toml") == [] and tuning(tmp_path / "none.toml") is None
    assert "as it is registered" in "\n".join(tuning_section(methods, None))


def test_encoders_of_a_file_are_named_without_it():
    label = "./benchmarks/sets/encoders.py:Drawings + ./e.py:Words (layers)"
    made = lines_of(label=label, encoders={"image": "./e.py:Drawings", "text": "minilm"})
    (found,) = settings_of(made)
    assert found.label == "Drawings + Words (layers)" and "py" not in found.slug
    assert advice.places(made, ABOUT, {})[0].encoders == {"image": "Drawings", "text": "minilm"}


def test_failures_are_listed():
    failed = {k: v for k, v in line("icons", 1000, 0, "sail").items() if k != "test"}
    text = page_of([*lines_of(methods=["auto", "csa"]), failed | {"error": "out of memory\nat …"}])
    assert "- icons, `sail`, 1,000 pairs, seed 0: out of memory\n" in text


def test_the_limit_of_trainings_is_said():
    limited = {"limited": {"times": 5, "of": "auto"}, "batch": 1024}
    text = " ".join(page_of(lines_of(**limited)).split())
    assert "1,024 pairs a step" in text and "5 times the CPU time of `auto`" in text


# -- figures ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_lines_give_the_same_files(tmp_path):
    made = lines_of(seeds=(0,))
    first, second = (draw(made, tmp_path / name) for name in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert len(first) == 2


def test_families_can_be_told_apart():
    style = figures.styles(settings_of(lines_of(sizes=(1000,))))
    assert set(style) == set(METHODS)
    assert style["auto"]["linewidth"] > max(s["linewidth"] for m, s in style.items() if m != "auto")
    assert style["csa"]["linestyle"] == "-" != style["sail"]["linestyle"]
    assert len({s["color"] for s in style.values()}) == len(style)


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0, 9.0], [0.0, 0.1], [5.0, 5.5, 8.0, 8.2, 8.3]])
def test_names_never_overlap_and_move_no_more_than_they_must(values):
    found = figures.spread(values, gap=1.0, low=0.0)
    assert all(b - a >= 1.0 - 1e-9 for a, b in zip(found, found[1:], strict=False))
    assert found[0] >= 0.5 - 1e-9
    assert figures.spread([1.0, 5.0], gap=1.0, low=0.0) == [1.0, 5.0]


# -- advice ----------------------------------------------------------------------------------------


def test_the_packaged_form_keeps_every_place(tmp_path):
    places = advice.places(lines_of(("icons", "places")), ABOUT, {"csa": ("dim=64",)})
    path = tmp_path / "measured.json"
    path.write_text(advice.table(places))
    assert [asdict(p) for p in read_places(path)] == [asdict(p) for p in places]
    found = {m.method: m for m in places[0].methods}
    assert found["csa"].packages == ("fusemix-closed-form",) and found["auto"].packages == ()
    assert found["csa"].overrides == ("dim=64",) and found["linear CCA"].recipe == "cca"
    assert found["csa"].surely_behind and not found["auto"].surely_behind


def test_the_table_of_the_page_has_only_sizes_that_were_measured():
    rows = "\n".join(advice.which_table(advice.places(lines_of(sizes=(500, 15000)), ABOUT, {})))
    assert "| 500 pairs | `auto` |" in rows and "| 15,000 pairs | `auto` |" in rows
    assert "1,500 pairs" not in rows and "5,000 pairs | " not in rows.replace("15,000 pairs", "")
