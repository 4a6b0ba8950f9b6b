"""`fusemix recipes advise`: a recipe for a number of pairs, and how far what was measured is."""

import json
import subprocess
import sys

import pytest
from pairs import write_world
from typer.testing import CliRunner

from fusemix_core.benchmark import advice
from fusemix_core.benchmark.advice import Measured, Place, advise
from fusemix_core.cli.app import app
from fusemix_core.errors import ConfigError
from fusemix_core.project import how_to_install

IMAGES, MOLECULES = {"image": "i", "text": "t"}, {"molecule": "m", "text": "t"}


def method(name, r1, behind=(-1.0, 1.0), seconds=1.0, packages=()):
    return Measured(name, name, (), packages, seconds, r1, 1.0, 0.0, behind)


def place(name, pairs, methods=None, encoders=IMAGES):
    methods = methods or [method("auto", 30, None), method("csa", 20, (5, 15), 0.1)]
    return Place(name, "", encoders, pairs, 3, tuple(methods))


def call(*args, code=0):
    done = CliRunner().invoke(app, ["recipes", "advise", *map(str, args)], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def measured(monkeypatch):
    """Replaces what the package has measured."""

    def replace(*places):
        monkeypatch.setattr(advice, "read_places", lambda: list(places))

    return replace


# -- which places ----------------------------------------------------------------------------------


def test_of_every_set_the_size_counts_that_is_nearest_by_ratio():
    found = advise([place("a", n) for n in (100, 1000, 10000)] + [place("b", 1500)], 3000)
    assert [(p.set, p.pairs) for p in found.nearest] == [("b", 1500), ("a", 1000)]
    assert advise([place("a", 1000), place("a", 10000)], 3300).nearest[0].pairs == 10000


def test_sets_whose_sizes_are_far_are_left_out_while_one_is_near():
    places = [place("a", 1000), place("b", 100_000)]
    assert [p.set for p in advise(places, 2000).nearest] == ["a"]
    assert advise(places, 2000).near and not advise(places, 2000).notes


def test_the_same_encoders_are_no_condition_but_the_same_modalities_come_first():
    places = [place("a", 1000), place("m", 3000, encoders=MOLECULES)]
    assert [p.set for p in advise(places, 1000, ["text", "molecule"]).nearest] == ["m"]
    assert [p.set for p in advise(places, 1000).nearest] == ["a", "m"]


def test_a_size_of_the_same_modalities_that_is_far_is_shown_beside_near_ones_of_others():
    places = [place("a", 1000), place("m", 100_000, encoders=MOLECULES)]
    found = advise(places, 1000, ["molecule", "text"])
    assert [p.set for p in found.nearest] == ["m", "a"] and found.near
    assert "100 × yours" in found.notes[0]


def test_far_from_all_that_was_measured_it_is_called_a_guess():
    found = advise([place("a", 500), place("a", 2000)], 1_000_000)
    assert not found.near and [p.pairs for p in found.nearest] == [2000]
    assert "only from 500 to 2,000" in found.notes[0] and "guess" in found.notes[0]


def test_modalities_that_were_never_measured_are_said():
    assert (
        "No set of audio and video" in advise([place("a", 500)], 500, ["audio", "video"]).notes[0]
    )


@pytest.mark.parametrize(("places", "pairs"), [([], 100), ([place("a", 500)], 3)])
def test_nothing_to_advise_on_is_an_error(places, pairs):
    with pytest.raises(ConfigError):
        advise(places, pairs)


# -- which recipe ----------------------------------------------------------------------------------


def test_the_default_is_taken_unless_it_is_behind_beyond_the_noise():
    close = [method("auto", 29, (-0.5, 2.5)), method("other", 30, None)]
    behind = [method("auto", 20, (5, 15)), method("other", 30, None)]
    assert advise([place("a", 500, close)], 500).take.method == "auto"
    found = advise([place("a", 500, close), place("b", 500, behind)], 500)
    assert found.take.method == "other"
    assert "`auto` is below the best beyond the noise on b (500 pairs)" in found.reason


def test_a_method_is_only_taken_if_it_was_measured_at_every_place():
    one = [method("auto", 20, (5, 15)), method("only here", 40, None), method("both", 30, (1, 2))]
    two = [method("auto", 20, (5, 15)), method("both", 30, None)]
    assert advise([place("a", 500, one), place("b", 500, two)], 500).take.method == "both"


def test_an_interval_that_is_not_known_proves_nothing():
    assert not method("a", 1, None).surely_behind
    assert method("a", 1, (0.1, 2)).surely_behind and not method("a", 1, (-0.1, 2)).surely_behind


def test_a_faster_method_is_named_only_if_nowhere_behind():
    fine = [method("auto", 30, None, 10), method("csa", 29, (-1, 3), 0.1)]
    found = advise([place("a", 500, fine)], 500)
    assert found.take.method == "auto" and found.quick.method == "csa"
    assert "0.1 s instead of 10 s" in found.notes[0] and "29.0 instead of 30.0" in found.notes[0]
    assert advise([place("a", 500, fine), place("b", 500)], 500).quick is None


# -- the command -----------------------------------------------------------------------------------


def test_it_shows_the_size_measured_and_how_far_it_is(measured):
    measured(place("drawings", 15_000))
    shown = call("--pairs", 12_000).stdout
    assert "Take auto: --recipe auto" in shown
    assert "15,000" in shown and "1.2 × yours" in shown and "drawings" in shown
    assert "auto 30.0 ± 1.0 (1 s)" in shown and "csa 20.0 ± 1.0 (0.1 s)" in shown


def test_json_has_the_same(measured):
    measured(place("a", 500))
    found = json.loads(call("--pairs", 1000, "--json").stdout)
    assert found["take"]["recipe"] == "auto" and found["near"] and found["notes"] == []
    (nearest,) = found["nearest"]
    assert nearest["times"] == 2 and nearest["pairs"] == 500 and nearest["best"] == "auto"
    assert nearest["methods"][1]["behind_interval"] == [5, 15]


def test_a_recipe_that_is_not_installed_comes_with_what_to_install(measured):
    best = method("nowhere", 40, None, packages=("fusemix-nowhere",))
    measured(place("a", 500, [method("auto", 20, (5, 15)), best]))
    said = f"nowhere is not installed: {how_to_install('fusemix-nowhere')}"
    assert said in call("--pairs", 500).stdout
    found = json.loads(call("--pairs", 500, "--json").stdout)
    assert found["install"] == {"nowhere": ["fusemix-nowhere"]}


def test_settings_that_a_method_was_measured_with_are_in_the_advice(measured):
    tuned = Measured("tuned", "auto", ("dim=64",), (), 1.0, 40.0, None, 0.0, None)
    measured(place("a", 500, [tuned, method("csa", 20, (5, 15))]))
    shown = call("--pairs", 500).stdout
    assert "--recipe auto --set dim=64" in shown and "tuned 40.0 (1 s)" in shown


def test_pairs_and_modalities_are_found_in_data(tmp_path, measured):
    write_world(tmp_path, count=60)
    measured(place("a", 50), place("m", 50, encoders=MOLECULES))
    found = json.loads(call("--data", tmp_path / "pairs.csv", "--json").stdout)
    assert 40 <= found["pairs"] < 60  # without those to test on
    assert found["modalities"] == ["image", "text"] and len(found["nearest"]) == 1


def test_a_number_or_data_must_be_given():
    assert "--pairs N" in call(code=2).stderr


def test_what_the_package_has_is_read_without_anything_heavy():
    code = (
        "import sys; from fusemix_core.cli.app import app\n"
        "try: app(['recipes', 'advise', '--pairs', '3000'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Take auto" in done.stdout
