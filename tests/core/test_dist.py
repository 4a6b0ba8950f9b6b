"""`make dist`: every wheel with one version, as PyPI wants them, installed from a local index."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import fusemix_core

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, *sorted(p.parent for p in ROOT.glob("plugins/*/pyproject.toml"))]


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def test_all_projects_have_one_version_and_ask_for_it():
    listed = (ROOT / "fusemix_core/released.txt").read_text().split()
    assert listed == [folder.name for folder in PROJECTS[1:]]
    floor = ".".join(fusemix_core.__version__.split(".")[:2])
    for folder in PROJECTS:
        one = project(folder)
        hatch = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["hatch"]
        assert one["dynamic"] == ["version"] and "version" not in one, one["name"]
        source = (folder / hatch["version"]["path"]).resolve()
        assert source == ROOT / "fusemix_core/version.py", one["name"]
        for requirement in one["dependencies"]:
            if requirement.startswith("fusemix"):
                assert requirement.endswith(f">={floor}"), (one["name"], requirement)


def test_every_project_has_what_a_page_on_pypi_shows():
    for folder in PROJECTS:
        one = project(folder)
        assert one["description"] and one["license"] and (folder / one["readme"]).exists()
        assert all(
            link.startswith("https://") for link in one.get("urls", {"Paper": "https://x"}).values()
        )
    assert project(ROOT)["urls"]


@pytest.mark.long
def test_wheels_pass_twine_and_install_from_a_local_index(tmp_path):
    """With no checkout in reach: the environment sees the wheels and what it needs of PyPI only."""
    made = tmp_path / "dist"
    subprocess.run(
        ["make", "dist", f"DIST={made}", f"DIST_PYTHON={sys.executable}"],
        cwd=ROOT,
        check=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    wheels = sorted(made.glob("*.whl"))
    assert len(wheels) == len(PROJECTS)
    assert len({re.match(r"[^-]+-([^-]+)-", wheel.name)[1] for wheel in wheels}) == 1

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean |= {"FUSEMIX_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    install = [python, "-m", "pip", "install", "--quiet", "--find-links", made]
    constraints = ROOT / ".ci/constraints.txt"
    subprocess.run(
        [*install, "-c", constraints, "fusemix", "fusemix-starter"],
        cwd=tmp_path,
        env=clean,
        check=True,
    )
    fusemix = tmp_path / "venv/bin/fusemix"
    subprocess.run([fusemix, "sample"], cwd=tmp_path, env=clean, check=True)
    listed = subprocess.run(
        [fusemix, "plugins"], cwd=tmp_path, env=clean, check=True, capture_output=True, text=True
    )
    assert "fusemix-starter" in listed.stdout
    train = [fusemix, "align", "--a", "efficientnet-lite0", "--b", "minilm", "--recipe", "cca"]
    data = ["--data", "sample/pairs.csv", "--split-column", "split", "--pairs", "200"]
    subprocess.run([*train, *data, "--out", "run"], cwd=tmp_path, env=clean, check=True)
    found = subprocess.run(
        [fusemix, "search", "run", "--data", "sample/images/world-history", "a map", "-k", "3"],
        cwd=tmp_path,
        env=clean,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "world-history" in found.stdout
