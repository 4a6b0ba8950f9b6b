"""Which folder a run may take, and which run it may take up."""

import json
import shutil
from pathlib import Path

import pytest
from pairs import write_world

from fusemix_core import align
from fusemix_core.config import read_toml
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.runs.config import build_config
from fusemix_core.runs.folder import RunFolder

TOYS = Path(__file__).parents[1] / "toys.py"
BEGUN = Path(__file__).parent / "begun"
ENCODERS = {"image": "tests/toys.py:ToyImage", "text": "tests/toys.py:ToyText"}
SMALL = ["training.epochs=3", "adapter.blocks=1", "adapter.dropout=0.0", "dim=8"]
CLOSED = read_toml(BEGUN / "default.toml")["recipe"]
"""The default of then, as the run recorded it: what `--resume` reads."""
RECIPES = {"default": (CLOSED, []), "paper": ("fusemix", SMALL)}


def config(recipe=CLOSED, overrides=(), **more):
    data = {"source": ["world/pairs.csv"], "test_fraction": 0.2, **more.pop("data", {})}
    values = {"encoders": ENCODERS, "data": data, "recipe": recipe, "device": "cpu", "seed": 3}
    return build_config({**values, **more}, list(overrides))[0]


def begun(folder, name):
    folder.mkdir()
    shutil.copy(BEGUN / f"{name}.toml", folder / "config.toml")
    return RunFolder(folder)


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_begun_before_settings_existed_is_taken_up(tmp_path, name):
    folder, now = begun(tmp_path / "r", name), config(*RECIPES[name])
    folder.start(now, resume=True)
    assert {"evaluators", "plugins"} <= read_toml(folder.config).keys()
    folder.start(now, resume=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": {"facts": {"age": "age"}}}, "data.facts.age = None, not 'age'"),
        ({"seed": 4}, "seed = 3, not 4"),
        ({"data": {"trust_column": "none"}}, "data.trust_column = None, not 'none'"),
    ],
)
def test_a_run_begun_with_other_settings_is_not(tmp_path, change, says):
    with pytest.raises(ConfigError, match=says):
        begun(tmp_path / "r", "default").start(config(**change), resume=True)


def test_a_run_of_the_former_default_is_not_one_of_todays(tmp_path):
    with pytest.raises(ConfigError, match="not 'wide'") as raised:
        begun(tmp_path / "r", "default").start(config("auto"), resume=True)
    assert "Resume it as it was" in raised.value.hint


def test_a_run_with_settings_that_are_unknown_here_names_one_of_them(tmp_path):
    folder = begun(tmp_path / "r", "default")
    folder.config.write_text("cleverness = 11\n" + folder.config.read_text())
    with pytest.raises(ConfigError, match="can't be resumed by this version.*cleverness") as raised:
        folder.start(config(), resume=True)
    assert "the version that began it" in raised.value.hint


def test_an_old_run_is_finished(tmp_path, monkeypatch):
    write_world(tmp_path / "world")
    monkeypatch.chdir(tmp_path)
    folder = begun(tmp_path / "r", "default")
    folder.config.write_text(folder.config.read_text().replace("tests/toys.py", str(TOYS)))
    table = read_toml(folder.config)
    how = {"seed": 3, "device": "cpu", "out": "r", "resume": True}
    done = align(table["encoders"], table["data"], recipe=table["recipe"], **how)
    assert json.loads(done.folder.results.read_text())["test"]


@pytest.mark.parametrize("out", ["file", "file/run", "n" * 300])
def test_an_out_that_cant_be_a_folder_is_an_artefact_error(tmp_path, out):
    (tmp_path / "file").touch()
    with pytest.raises(ArtefactError, match="is a file|can't be written") as raised:
        RunFolder(tmp_path / out).start(config(), resume=False)
    assert "--out" in raised.value.hint and "--resume" not in raised.value.hint
