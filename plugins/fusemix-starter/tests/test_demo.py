"""`fusemix demo`: sample, model, searches and report, and nothing twice."""

from __future__ import annotations

import csv
import shutil

import fusemix_starter
import pytest
import typer
from fusemix_starter import story
from loaded import share_encoders
from typer.testing import CliRunner

app = typer.Typer()
app.command()(story.demo)


@pytest.fixture
def small_sample(tmp_path, monkeypatch):
    """Forty rows of the sample, in the place of all."""
    whole, folder = fusemix_starter.sample_path(), tmp_path / "small"
    with open(whole, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kept = [r for s in ("train", "validation", "test") for r in rows if r["split"] == s][:25]
    kept += [r for r in rows if r["split"] != "train"][:15]
    for row in kept:
        (folder / row["image"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(whole.parent / row["image"], folder / row["image"])
    kept[-5:] = [{**r, "split": "validation"} for r in kept[-5:]]
    with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(kept)
    monkeypatch.setattr(fusemix_starter, "sample_path", lambda: folder / "pairs.csv")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_it_ends_with_a_model_three_searches_and_the_report(tmp_path, small_sample, monkeypatch):
    opened = []
    share_encoders(monkeypatch)
    monkeypatch.setattr(story.webbrowser, "open", opened.append)
    monkeypatch.setattr(story, "has_screen", lambda: True)
    monkeypatch.chdir(tmp_path)
    printed = run("here")
    commands = [line.split()[2] for line in printed.splitlines() if line.startswith("$ fusemix")]
    assert commands == ["sample", "align", "search", "search", "search"]
    assert all(f"'{query}'" in printed for query in story.QUERIES)
    assert (tmp_path / "here/run/model/config.json").exists()
    assert opened == [(tmp_path / "here/run/report.html").as_uri()]
    again = run("here", "--no-open")
    assert "$ fusemix align" not in again and again.count("$ fusemix search") == 3
    assert len(opened) == 1
    notes = [line for line in again.splitlines() if line.startswith("Note: ")]
    assert notes and len(set(notes)) == len(notes)
