"""What a run says of its first answers: tables of every query and row, trust, paths."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from pairs import write_world

import fusemix_core
from fusemix_core.runs.answers import trust_section

TOYS = Path(__file__).parents[1] / "toys.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers")
    data = write_world(folder / "world", count=200)
    with data.open("a") as file:
        file.write("nothing.png,a missing picture\n")
    names = {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"}
    how = {"source": [str(data)], "max_bad": 0.5}
    fusemix_core.align(names, how, recipe="csa", out=folder / "r", device="cpu")
    return folder / "r"


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_query_is_in_the_table_and_recall_follows_from_it(run):
    rows = table(run / "test_ranks.csv")
    found = json.loads((run / "results.json").read_text())["test"]["retrieval"]["directions"]
    for name, metrics in found.items():
        query, target = name.split("->")
        own = [row for row in rows if (row["query"], row["target"]) == (query, target)]
        assert len(own) == metrics["queries"]
        hits = sum(int(row["rank"]) == 1 for row in own)
        assert 100 * hits / len(own) == pytest.approx(metrics["r1"])
        for row in own:
            assert (row["first"] == row["partner"]) == (row["rank"] == "1")
            assert float(row["score"]) >= float(row["partner_score"])
    assert {row["row"] for row in rows} <= {row["row"] for row in table(run / "splits.csv")}


def test_every_row_that_is_used_has_its_split(run):
    rows = table(run / "splits.csv")
    results = json.loads((run / "results.json").read_text())
    assert Counter(row["split"] for row in rows) == results["pairs"]
    assert len({(row["file"], row["row"]) for row in rows}) == len(rows)


def test_what_is_trusted_was_chosen_on_validation(run):
    found = json.loads((run / "results.json").read_text())["trusted"]
    rows = table(run / "test_ranks.csv")
    assert set(found) == {"image->text", "text->image"}
    for name, goals in found.items():
        own = [r for r in rows if f"{r['query']}->{r['target']}" == name]
        for worth in goals.values():
            above = [r for r in own if float(r["score"]) >= worth["score"] - 1e-6]
            assert worth["share"] == pytest.approx(100 * len(above) / len(own))


def section_of(goals):
    found = trust_section([], {"image->text": goals})
    return found.text, [row[:3] for table in found.tables for row in table.rows]


def worth(score, *between):
    precision = None if not between else sum(between) / 2
    return {"score": score, "share": 40.0, "precision": precision,
            "precision_interval": list(between) or None}  # fmt: skip


def test_a_goal_that_test_missed_is_named():
    text, _ = section_of({"90": worth(0.3, 80.0, 95.0), "50": worth(0.1, 27.5, 47.8)})
    missed = "Test missed the goal of 50% in image → text: the whole interval is below it."
    assert text.endswith(missed)
    for reached in ({"50": worth(0.1, 27.5, 50.2)}, {"50": worth(0.1)}):
        assert "missed" not in section_of(reached)[0]


def test_goals_with_the_same_threshold_are_one_row():
    _, rows = section_of({"90": worth(0.3, 80.0, 95.0), "50": worth(0.3, 80.0, 95.0)})
    assert rows == [["image → text", "90%", 0.3]]


def test_the_report_names_no_folder_of_the_machine(run):
    text = (run / "report.html").read_text()
    assert str(run.parent) not in text and str(Path.home()) not in text
    assert 'alt="0.png"' in text or ".png" in text
    assert "Wrong, and sure of it" in text and "pairs.csv, row " in text
    assert "<summary>Rejected</summary>" in text and "<td>world/pairs.csv</td>" not in text
    assert "<td>pairs.csv</td>" in text  # what was rejected is still named
