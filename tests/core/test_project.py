"""Nothing tells a user to install a name that is not ours on PyPI."""

import re
from functools import partial
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fusemix_core import project
from fusemix_core.cli.base import new_app
from fusemix_core.errors import UnknownNameError
from fusemix_core.project import how_to_install, install, upgrade
from fusemix_core.registry import Registry

REQUIRES = {
    "fusemix": [
        "torch>=2.6",
        'pydicom>=3; extra == "dicom"',
        "onnx>=1.17; extra == 'fast'",
        "openvino>=2024.6; extra == 'fast'",
    ],
    "fusemix-dinov2": ["fusemix>=0.1", "fusemix-hf>=0.1"],
    "fusemix-hf": ["fusemix>=0.1", "transformers>=5"],
}


@pytest.fixture(autouse=True)
def unpublished(monkeypatch):
    monkeypatch.setattr(project, "_requires_of", lambda dist: REQUIRES.get(dist, []))
    monkeypatch.setattr(project, "repository", lambda: "")
    monkeypatch.setattr(project, "PUBLISHED", False)


@pytest.mark.parametrize(
    ("requirement", "line"),
    [
        ("timm>=1.0", "pip install 'timm>=1.0'"),
        ("fusemix", "pip install . (in a clone of fusemix)"),
        ("fusemix-timm>=0.1", "pip install ./plugins/fusemix-timm (in a clone of fusemix)"),
        (
            "fusemix-starter[speech]",
            "pip install './plugins/fusemix-starter[speech]' (in a clone of fusemix)",
        ),
        (
            "fusemix-dinov2",
            "pip install ./plugins/fusemix-dinov2 ./plugins/fusemix-hf (in a clone of fusemix)",
        ),
        ("fusemix-birds[songs]>=2", "pip install 'fusemix-birds[songs]>=2'"),  # another's
        ("fusemix[dicom]", "pip install 'pydicom>=3'"),
        ("fusemix[fast]", "pip install 'onnx>=1.17' 'openvino>=2024.6'"),
        ("fusemix[unknown]", "pip install '.[unknown]' (in a clone of fusemix)"),
    ],
)
def test_our_packages_come_from_a_clone_and_an_extra_is_what_it_stands_for(requirement, line):
    assert how_to_install(requirement) == line


def test_a_known_repository_takes_the_place_of_the_clone(monkeypatch):
    monkeypatch.setattr(project, "repository", lambda: "https://example.org/fusemix")
    assert install("fusemix", "fusemix-gram") == (
        "pip install 'fusemix @ git+https://example.org/fusemix' "
        "'fusemix-gram @ git+https://example.org/fusemix#subdirectory=plugins/fusemix-gram'"
    )
    assert upgrade() == "pip install --upgrade 'fusemix @ git+https://example.org/fusemix'"


def test_names_are_used_once_they_are_published(monkeypatch):
    monkeypatch.setattr(project, "PUBLISHED", True)
    assert how_to_install("fusemix-starter[speech]", "fusemix") == (
        "pip install 'fusemix-starter[speech]' fusemix"
    )
    assert upgrade() == "pip install --upgrade fusemix"


@pytest.fixture
def bare(monkeypatch):
    """An environment of fusemix without plugins."""
    monkeypatch.setattr(project, "_is_installed", lambda dist: False)


@pytest.mark.parametrize(
    ("kind", "name", "plugin"),
    [
        ("recipe", "csa", "fusemix-closed-form"),
        ("recipe", "Procrustes", "fusemix-closed-form"),
        ("encoder", "aisfx", "fusemix-packaged"),
        ("encoder", "clap", "fusemix-clap"),
        ("encoder", "timm:resnet18", "fusemix-timm"),
        ("objective", "arl", "fusemix-arl"),
    ],
)
def test_a_name_of_a_plugin_that_is_not_installed_names_the_plugin(kind, name, plugin, bare):
    registry = Registry(lambda: ())
    look_up = registry.encoder if kind == "encoder" else partial(registry.component, kind)
    with pytest.raises(UnknownNameError) as caught:
        look_up(name)
    assert f"comes with the plugin {plugin}, which is not installed" in caught.value.message
    assert f"pip install ./plugins/{plugin}" in caught.value.hint


def test_a_command_of_a_plugin_that_is_not_installed_names_the_plugin(bare):
    app = new_app()
    app.command("score")(print)
    done = CliRunner().invoke(app, ["serve", "x.index"])
    assert done.exit_code == 2
    assert "comes with the plugin fusemix-serve, which is not installed" in done.output
    assert "pip install ./plugins/fusemix-serve" in done.output
    assert "No such command 'serv'" in CliRunner().invoke(app, ["serv"]).output


def test_an_installed_plugin_that_lacks_a_name_is_not_said_to_be_missing(monkeypatch):
    monkeypatch.setattr(project, "_is_installed", lambda dist: dist == "fusemix-closed-form")
    with pytest.raises(UnknownNameError, match="There is no recipe named 'csa'"):
        Registry(lambda: ()).component("recipe", "csa")


def test_plugins_that_a_plugin_needs_are_known_before_it_is_installed(monkeypatch):
    monkeypatch.undo()
    assert project.plugin_of("recipe", "cca") == ""

    def none(dist):
        raise PackageNotFoundError(dist)

    monkeypatch.setattr(project, "requires", none)
    assert [r.split(">")[0] for r in project._requires_of("fusemix-clap")] == ["fusemix-hf"]
    assert project._requires_of("fusemix-closed-form") == []


def test_no_page_and_no_message_installs_an_unpublished_name():
    root = Path(__file__).parents[2]
    wanted = re.compile(r"pip install (?:[^\n`#(;]*[ '\"])?fusemix(?!_)")
    sources = [
        p
        for folder in ("docs", "examples", "fusemix_core", "plugins", "README.md")
        for p in ([root / folder] if (root / folder).is_file() else (root / folder).rglob("*"))
        if p.suffix in {".py", ".md", ".toml", ".j2"} and "tests" not in p.parts
    ]
    assert len(sources) > 300
    named = [
        f"{p.relative_to(root)}: {line}"
        for p in sources
        if p.name != "project.py"
        for line in p.read_text().splitlines()
        if wanted.search(line)
    ]
    assert not named or project.PUBLISHED, named
