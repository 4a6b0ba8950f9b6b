"""`fusemix rank`."""

import json
import re

import pytest
from pairs import write_world
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.cli.rank import verdict
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
        ([0.767, 0.7422], "mean recall 76.7 by linear CCA, 2.5 points above a1 with b1."),
        ([0.767, 0.767], "mean recall 76.7 by linear CCA, as a1 with b1 has."),
    ],
)
def test_the_verdict_says_how_far_the_next_is(scores, says):
    pairings = [Pairing(f"a{i}", f"b{i}", {}, 0.5, score) for i, score in enumerate(scores)]
    found = Ranking(("image", "text"), pairings, {}, 100, 100)
    assert says in verdict(found) and verdict(found).startswith("Take a0 with b0")


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
