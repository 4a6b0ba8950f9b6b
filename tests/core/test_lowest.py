"""The lowest versions that are tried are those that pyproject.toml allows."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def test_make_lowest_installs_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / ".ci/lowest.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    bounds = [Requirement(line) for line in project["dependencies"]]
    assert {r.name: bound(r, "==") for r in pins} == {r.name: bound(r, ">=") for r in bounds}


def bound(requirement: Requirement, operator: str) -> Version:
    (version,) = (s.version for s in requirement.specifier if s.operator == operator)
    return Version(version)
