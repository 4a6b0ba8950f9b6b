"""`fusemix new-plugin`: what it writes is complete, tidy, and passes its own tests at once."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from kit.installing import add_metadata, fusemix, python
from typer.testing import CliRunner

from fusemix_core.cli.app import app
from fusemix_core.errors import ConfigError
from fusemix_core.registry import Registry
from fusemix_core.scaffold import write_component, write_generator, write_plugin
from fusemix_core.scaffold.components import TEMPLATES
from fusemix_core.specs import KINDS as SPEC_KINDS

ROOT = Path(__file__).parents[2]
NONE = Registry(entry_points=lambda: [])
KINDS = {
    "fusemix-one-image": "image", "fusemix-one-text": "text", "fusemix-one-audio": "audio",
    "fusemix-one-molecule": "molecule", "fusemix-one-video": "video",
}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The folder with a new plugin of each kind, and how they are found as if installed."""
    folder = tmp_path_factory.mktemp("written")
    path = [folder / "installed"]
    for name, modality in KINDS.items():
        made = write_plugin(name, modality, folder, registry=NONE)
        add_metadata(path[0], name, name.replace("-", "_"))
        path.append(made.folder / "src")
    return folder, path


@pytest.fixture(scope="module")
def components(tmp_path_factory):
    """The same of a plugin with each kind of component."""
    folder = tmp_path_factory.mktemp("components")
    path = [folder / "installed"]
    for kind in TEMPLATES:
        made = write_component(f"fusemix-my-{kind}", kind, folder, registry=NONE)
        add_metadata(path[0], made.name, made.name.replace("-", "_"))
        path.append(made.folder / "src")
    made = write_generator("fusemix-my-generator", folder)
    add_metadata(path[0], made.name, made.name.replace("-", "_"))
    path.append(made.folder / "src")
    return folder, path


def test_the_spec_says_when_to_raise_its_version(tmp_path):
    made = write_plugin("fusemix-one-image", "image", tmp_path, registry=NONE)
    written = (made.folder / "src/fusemix_one_image/__init__.py").read_text()
    assert 'version="1",  # raise it when encoder.py changes' in written


def test_every_kind_of_component_has_a_template():
    assert set(TEMPLATES) == set(SPEC_KINDS) - {"artefact"}


@pytest.mark.slow
def test_new_components_pass_their_kits_at_once(components, tmp_path):
    folder, path = components
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
                  *sorted(folder.glob("*/tests")), path=[*path, *sys.path], cwd=tmp_path,
                  OMP_NUM_THREADS="1", FUSEMIX_HOME=str(tmp_path))  # fmt: skip
    last = done.stdout.strip().splitlines()[-1]
    assert int(last.split()[0]) >= len(TEMPLATES) * 12 and "failed" not in last


def test_new_components_are_listed_and_declare_their_options(components):
    _, path = components
    path = [*path, *sys.path]
    rows = json.loads(fusemix("recipes", "components", "--json", path=path).stdout)
    found = {(r["kind"], r["name"]): r for r in rows if r["plugin"].startswith("fusemix-my-")}
    assert set(found) == {(kind, f"my-{kind}") for kind in TEMPLATES}
    assert found["adapter", "my-adapter"]["options"] == {"rank": 16}
    states = json.loads(fusemix("plugins", "--json", path=path).stdout)
    assert not [row for row in states if row["error"] and row["dist"].startswith("fusemix-my-")]


TRY = """
import shlex, sys
from typer.testing import CliRunner
from fusemix_core.cli.app import app

for line in sys.argv[1:]:
    done = CliRunner().invoke(app, [*shlex.split(line)[1:], "--dry-run"])
    assert done.exit_code == 0, f"{line}{done.output}{done.stderr}"
    print("taken")
"""


def test_the_command_that_uses_a_new_component_takes_it(components, tmp_path):
    folder, path = components
    fusemix("sample", path=sys.path, cwd=tmp_path)
    lines = [
        line
        for file in sorted(folder.glob("*/README.md"))
        for line in file.open()
        if line.startswith(("fusemix align", "fusemix fuse")) and "COLUMN" not in line
    ]
    assert len(lines) == 9
    done = python("-c", TRY, *lines, path=[*path, *sys.path], cwd=tmp_path,
                  FUSEMIX_HOME=str(tmp_path))  # fmt: skip
    assert done.stdout.split().count("taken") == len(lines)


def test_help_names_every_kind_and_a_taken_name_gets_one_that_fits(tmp_path):
    shown = CliRunner().invoke(app, ["new-plugin", "--help"], env={"COLUMNS": "300"}).stdout
    assert all(kind in shown for kind in TEMPLATES)
    taken = run("fusemix-timm", "--kind", "reranker", "--out", tmp_path).stderr
    assert "Call it, for example, fusemix-timm-reranker." in taken.replace("\n", " ")


def test_a_new_generator_is_about_thirty_lines_and_draws(components, tmp_path):
    folder, path = components
    file = folder / "fusemix-my-generator/src/fusemix_my_generator/generator.py"
    assert len([line for line in file.read_text().splitlines() if line.strip()]) <= 30
    fusemix("generate", "--from", "text", "a red fish", "--with", "my-generator",
            path=[*path, *sys.path], cwd=tmp_path, FUSEMIX_HOME=str(tmp_path))  # fmt: skip
    assert (tmp_path / "generated/a-red-fish-0.png").exists()


def test_new_components_are_ruff_clean(components):
    test_they_are_ruff_clean(components)


@pytest.mark.slow
def test_their_own_tests_pass_at_once(written, tmp_path):
    folder, path = written
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
                  *sorted(folder.glob("*/tests")), path=path, cwd=tmp_path,
                  OMP_NUM_THREADS="1", FUSEMIX_HOME=str(tmp_path))  # fmt: skip
    last = done.stdout.strip().splitlines()[-1]
    assert int(last.split()[0]) >= len(KINDS) * 2 * 27 and "failed" not in last


def test_they_are_ruff_clean(written):
    folder, _ = written
    config = ["--config", str(ROOT / "pyproject.toml")]
    for args in (["check", *config], ["format", "--check", *config]):
        ruff = [sys.executable, "-m", "ruff", *args, str(folder)]
        done = subprocess.run(ruff, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_they_are_listed_and_shown(written):
    _, path = written
    listed = fusemix("encoders", "list", path=path, COLUMNS="200").stdout
    for name in KINDS:
        assert name.removeprefix("fusemix-") in listed
    shown = fusemix("encoders", "show", "one-video", path=path).stdout
    assert "fusemix_one_video.encoder:OneVideoEncoder" in shown and "file" in shown


def test_the_encoder_is_about_thirty_lines(written):
    folder, _ = written
    for file in folder.glob("*/src/*/encoder.py"):
        code = [line for line in file.read_text().splitlines() if line.strip()]
        assert len(code) <= 50, file


def test_the_project_file_is_a_package(written, tmp_path):
    """One is built by pip and put into a folder; there its entry point is found."""
    folder, _ = written
    project = folder / "fusemix-one-text"
    table = tomllib.loads((project / "pyproject.toml").read_text())
    assert table["project"]["entry-points"]["fusemix"] == {"one-text": "fusemix_one_text"}
    copy = shutil.copytree(project, tmp_path / "project")
    python("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index",
           "--target", tmp_path / "site", copy)  # fmt: skip
    rows = fusemix("plugins", "--json", path=[tmp_path / "site"]).stdout
    assert '"fusemix-one-text"' in rows


def run(*args):
    return CliRunner().invoke(app, ["new-plugin", *map(str, args)])


def test_the_command_ends_with_the_next_three(tmp_path):
    result = run("fusemix-two", "--modality", "text", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1:] == [
        f"    cd {tmp_path / 'fusemix-two'} && pip install -e '.[test]'",
        "    pytest",
        "    fusemix encoders check two",
    ]


def test_the_command_writes_a_component(tmp_path):
    result = run("fusemix-two", "--kind", "objective", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    use = result.stdout.splitlines()[-1]
    assert use.endswith('--recipe fusemix --set "objective=two temperature=0.05"')
    assert use.strip() in (tmp_path / "fusemix-two/README.md").read_text().splitlines()
    assert (tmp_path / "fusemix-two/src/fusemix_two/objective.py").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["fusemix-two"], "Which modality"),
        (["fusemix-two", "--kind", "objectiv"], "objective"),
        (["fusemix-two", "--kind", "reader", "--modality", "text"], "has no --modality"),
        (["fusemix-linear", "--kind", "adapter"], "named 'adapter linear' already"),
        (["fusemix-two", "--kind", "generator", "--space", "no-such"], "no-such"),
        (["fusemix-two", "--kind", "reader", "--space", "minilm"], "Only a generator"),
    ],
)
def test_a_kind_that_cannot_be_written_is_refused(tmp_path, args, says):
    result = run(*args, "--out", tmp_path)
    assert result.exit_code == 2 and says in result.stderr.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "fusemix-two").mkdir()
    result = run("fusemix-two", "--modality", "text", "--out", tmp_path)
    assert result.exit_code == 2 and "exists already" in result.stderr
    assert not list((tmp_path / "fusemix-two").iterdir())


@pytest.mark.parametrize(
    ("name", "modality", "says"),
    [
        ("Birds", "audio", "Small letters, digits and single dashes"),
        ("my_birds", "audio", "Small letters, digits and single dashes"),
        ("../birds", "audio", "Small letters"),
        ("json", "audio", "Python knows 'json' already"),
        ("torch", "audio", "Python knows 'torch' already"),
        ("class", "audio", "Python knows 'class' already"),
        ("fusemix-birds", "Bird song", "can't be the name of a modality"),
        ("fusemix-minilm", "text", "has an encoder named 'minilm' already"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path, name, modality, says):
    result = run(name, "--modality", modality, "--out", tmp_path)
    assert result.exit_code == 2 and says in result.stderr.replace("\n", " ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("modality", "takes"), [("image", "text"), ("molecule", "audio")])
def test_what_it_takes_must_fit_the_modality(tmp_path, modality, takes):
    with pytest.raises(ConfigError, match=f"of {modality} can't take '{takes}'"):
        write_plugin("fusemix-two", modality, tmp_path, takes=takes, registry=NONE)
