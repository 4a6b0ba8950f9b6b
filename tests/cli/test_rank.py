"""`fusemix rank`."""

import json
import re
from dataclasses import replace

import pytest
from pairs import write_world
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.cli.rank import _show, verdict
from fusemix_core.jobs.rank import Pairing, Ranking


@pytest.fixture
def arguments(tmp_path, request):
    toys = request.config.rootpath / "tests/toys.py"
    data = write_world(tmp_path / "w", count=120)
    return ["rank", "--a", f"{toys}:ToyImage", "--b", f"{toys}:ToyText", "--data", str(data)]


def test_a_table_and_a_picture(arguments, tmp_path):
    done = CliRunner().invoke(app, [*arguments, "--picture", str(tmp_path / "deep/rank.svg")])
    assert done.exit_code == 0, done.output
    assert "mutual_knn" in done.stdout and "ToyText" in done.stdout
    assert "<svg" in (tmp_path / "deep/rank.svg").read_text()


def test_a_recipe_has_columns_of_its_own(arguments):
    done = CliRunner().invoke(app, [*arguments, "--recipe", "procrustes", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["pairings"][0]["probe"]["score"] >= 0
    done = CliRunner().invoke(app, [*arguments, "--recipe", "procrustes"], env={"COLUMNS": "200"})
    assert "procrustes: R@1" in done.stdout


def test_it_ends_with_what_to_take(arguments):
    done = CliRunner().invoke(app, arguments)
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"Take \S+ToyImage with \S+ToyText: mean recall .* compare it with\.", last)


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ([0.767], "nothing to compare"),
        ([0.767, 0.7422], "76.7 by linear CCA, +2.5 [0.5, 4.5] points above a1 with b1."),
        (
            [0.767, 0.7569],
            "76.7 by linear CCA, but 30 validation pairs don't show a difference from a1 with b1 "
            "(+1.0 [-1.0, 3.0]).",
        ),
        ([0.767, 0.76, 0.75], "from a1 with b1 (+0.7 [-1.3, 2.7]) and 1 more."),
    ],
)
def test_the_verdict_says_how_far_the_next_is(scores, says):
    found = ranking_of(scores)
    assert verdict(found).endswith(says) or says in verdict(found)
    assert verdict(found).startswith("Take a0 with b0")


def ranking_of(scores, seconds=None):
    pairings = []
    for i, score in enumerate(scores):
        points = 100 * (scores[0] - score)
        behind = {"points": points, "interval": [points - 2, points + 2]} if i else None
        took = seconds[i] if seconds else None
        pairings.append(Pairing(f"a{i}", f"b{i}", {}, 0.5, score, None, took, behind))
    return Ranking(("image", "text"), pairings, {}, 100, 100, validation=30)


def test_of_pairings_that_validation_cannot_tell_apart_the_quickest_is_taken():
    found = ranking_of([0.978, 0.967, 0.9, 0.8], seconds=[8.0, 1.0, 0.1, 0.1])
    assert found.taken.a == "a1" and found.as_dict()["take"] == ["a1", "b1"]
    assert verdict(found) == (
        "Take a1 with b1: mean recall 96.7 by linear CCA. a0 with b0 has 97.8, which 30 validation "
        "pairs don't show to be more (+1.1 [-0.9, 3.1]), and takes 8.0 times as long to encode."
    )
    assert ranking_of([0.978, 0.967], seconds=[1.1, 1.0]).taken.a == "a0"  # about as quick
    assert ranking_of([0.978, 0.967], seconds=[None, 1.0]).taken.a == "a0"
    assert ranking_of([0.978, 0.9], seconds=[8.0, 1.0]).taken.a == "a0"


def test_a_correlation_over_few_pairings_is_not_shown(capsys):
    for count in (3, 5):
        found = ranking_of([0.9 - i / 10 for i in range(count)])
        _show(replace(found, spearman={"cka": 0.5}), json=False)
        assert ("Spearman" in capsys.readouterr().out) == (count == 5)


def test_json(arguments):
    done = CliRunner().invoke(app, [*arguments, "--json", "--shuffles", "3"])
    found = json.loads(done.stdout)
    assert found["modalities"] == ["image", "text"]
    assert 0 <= found["pairings"][0]["recall_at_1"] <= 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--picture", "rank.txt"], "not a picture"),
        (["--b", "nothing-such"], "nothing-such"),
        (["--recipe", "no-recipe"], "no-recipe"),
    ],
)
def test_errors_before_anything_is_encoded(arguments, more, says):
    done = CliRunner().invoke(app, [*arguments, *more])
    assert done.exit_code == 2 and says in done.stderr
