"""A plugin that fusemix has never seen: built, installed into a fresh environment, used; twenty
plugins installed at once, and a broken one beside them."""

import json
import os
import shutil
import sys
import venv
from pathlib import Path

import pytest
from kit.installing import add_metadata, fusemix, python
from pairs import write_world

from fusemix_core.testing.encoders import ENCODER

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "third-party-encoder"
NOT_ITS = {"fit_is_plain", "fit_is_kept", "fit_to_few", "network"}
"""Checks of encoders that learn from items, or have a network."""
ITS = ENCODER.checks.keys() - NOT_ITS
TEXT = f"{ROOT}/tests/toys.py:ToyText"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The example's wheel, built by pip from a copy of its folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(EXAMPLE, folder / "source")
    python("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index",
           "--wheel-dir", folder, source)  # fmt: skip
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """The wheel, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    python("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", folder, wheel)
    return folder


def test_it_is_about_thirty_lines():
    source = (EXAMPLE / "src" / "colour_histogram" / "encoder.py").read_text()
    assert len([line for line in source.splitlines() if line.strip()]) <= 36


def test_it_is_listed_shown_and_no_plugin_is_broken(site):
    listed = json.loads(fusemix("encoders", "list", "--json", path=[site]).stdout)
    (mine,) = [row for row in listed if row["name"] == "colour-histogram"]
    assert (mine["plugin"], mine["dim"]) == ("fusemix-colour-histogram", 512)
    plugins = json.loads(fusemix("plugins", "--json", path=[site]).stdout)
    assert {p["dist"]: p["error"] for p in plugins}["fusemix-colour-histogram"] == ""


@pytest.mark.slow
def test_its_own_tests_pass(site, tmp_path):
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", EXAMPLE / "tests",
                  path=[site], cwd=tmp_path, OMP_NUM_THREADS="1")  # fmt: skip
    assert f"{len(ITS) + 1} passed, {len(NOT_ITS)} skipped" in done.stdout  # one counts them


def align(world, folder, **how):
    args = ["align", "--a", "colour-histogram", "--b", TEXT, "--data", world, "--out",
            folder / "run", "--device", "cpu", "--recipe", "cca"]  # fmt: skip
    fusemix(*args, cwd=folder, FUSEMIX_HOME=str(folder / "home"), OMP_NUM_THREADS="1", **how)
    config = json.loads((folder / "run" / "model" / "config.json").read_text())
    assert config["encoders"]["image"]["name"] == "colour-histogram"
    assert (folder / "run" / "results.json").is_file()


def test_a_model_is_aligned_with_it(site, tmp_path):
    align(write_world(tmp_path / "world"), tmp_path, path=[site, *sys.path])


@pytest.mark.slow
@pytest.mark.parametrize("used", [False, pytest.param(True, marks=pytest.mark.long)])
def test_in_a_fresh_environment(wheel, tmp_path, used):
    """The same with a virtual environment of its own, which sees this one's packages."""
    venv.create(tmp_path / "env", with_pip=False)
    own = tmp_path / "env" / "bin" / "python"
    (packages,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    python("-m", "pip", "--python", own, "install", "-q", "--no-deps", "--no-index", wheel)
    (packages / "this-environment.pth").write_text("\n".join(p for p in sys.path if p))
    listed = fusemix("encoders", "list", "--json", interpreter=own).stdout
    assert "colour-histogram" in {row["name"] for row in json.loads(listed)}
    if used:
        align(write_world(tmp_path / "world"), tmp_path, interpreter=own)


# -- many plugins ----------------------------------------------------------------------------------

LISTING = """
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec

@hookimpl
def fusemix_encoders():
    return [
        EncoderSpec(name=f"many-{i:02}-{{k}}", modality="image", target="nowhere:X", dim=64)
        for k in range(5)
    ]
"""


@pytest.fixture
def twenty(tmp_path):
    """Twenty plugins of five encoders each, and four broken ones."""
    for i in range(20):
        (tmp_path / f"many_{i:02}.py").write_text(LISTING.replace("{i:02}", f"{i:02}").replace(
            "{{k}}", "{k}"))  # fmt: skip
        add_metadata(tmp_path, f"many-{i:02}", f"many_{i:02}")
    broken = {
        "raises": "raise RuntimeError('out of order')",
        "wants": "import a_package_that_nobody_has",
        "exits": "import sys; sys.exit('no licence')",
        "wrong": "def fusemix_encoders(): return ['a string']",
    }
    for name, text in broken.items():
        (tmp_path / f"broken_{name}.py").write_text(text)
        add_metadata(tmp_path, f"broken-{name}", f"broken_{name}")
    return tmp_path


def seconds_of_children():
    """Of CPU: what else the machine does does not count."""
    times = os.times()
    return times.children_user + times.children_system


def test_twenty_plugins_are_listed_quickly_and_lightly(twenty):
    code = (
        "import sys; from fusemix_core.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'numpy', 'transformers', 'timm', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    before = seconds_of_children()
    done = python("-c", code, "encoders", "list", "--json", path=[twenty],
                  interpreter=sys.executable)  # fmt: skip
    assert seconds_of_children() - before < 10
    names = {row["name"] for row in json.loads(done.stdout)}
    assert {f"many-{i:02}-{k}" for i in range(20) for k in range(5)} <= names
    text = fusemix("encoders", "list", path=[twenty], COLUMNS="200").stdout
    assert "4 plugin(s) failed to load" in text


def test_broken_plugins_are_rows_and_nothing_else(twenty):
    rows = json.loads(fusemix("plugins", "--json", path=[twenty]).stdout)
    errors = {row["dist"]: row["error"] for row in rows if row["error"]}
    assert errors == {
        "broken-raises": "RuntimeError: out of order",
        "broken-wants": "ModuleNotFoundError: No module named 'a_package_that_nobody_has'",
        "broken-exits": "SystemExit: no licence",
        "broken-wrong": "fusemix_core.errors.PluginError: fusemix_encoders gave 'a string', "
        "which is not an EncoderSpec.",
    }
    assert sum(row["dist"].startswith("many-") for row in rows) == 20


def test_an_unknown_name_names_the_broken_plugins(twenty):
    done = fusemix("encoders", "check", "wants-this", path=[twenty], check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "broken-raises failed to load: RuntimeError: out of order" in done.stderr


@pytest.mark.slow
def test_the_kit_checks_it_on_the_command_line_beside_broken_plugins(twenty, site):
    done = fusemix("encoders", "check", "colour-histogram", "--device", "cpu", "--json",
                   path=[twenty, site], OMP_NUM_THREADS="1")  # fmt: skip
    report = json.loads(done.stdout)
    assert report["ok"] and report["ran"] == len(ITS) and report["failed"] == 0
