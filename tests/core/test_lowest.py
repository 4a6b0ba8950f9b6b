"""Versions: the lowest that are tried are those that pyproject.toml allows; ours are pinned."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]


def test_make_lowest_installs_the_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / ".ci/lowest.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    bounds = [Requirement(line) for line in project["dependencies"]]
    assert {r.name: bound(r, "==") for r in pins} == {r.name: bound(r, ">=") for r in bounds}


def test_what_our_machines_install_is_pinned():
    """A new release of another project then fails no run of ours."""
    lines = (ROOT / ".ci/constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert all(bound(pin, "==") for pin in pins)
    wanted = set()
    for file in (ROOT / "pyproject.toml", *(ROOT / "plugins").glob("*/pyproject.toml")):
        project = tomllib.loads(file.read_text())["project"]
        extras = project.get("optional-dependencies", {})
        lines = project.get("dependencies", [])
        lines += [line for name in ("test", "docs", "bench") for line in extras.get(name, [])]
        wanted |= {canonicalize_name(Requirement(line).name) for line in lines}
    ours = {name for name in wanted if "fusemix" in name}
    missing = wanted - ours - {canonicalize_name(pin.name) for pin in pins}
    assert not missing, f"add `NAME==VERSION` to .ci/constraints.txt: {missing}"


def bound(requirement: Requirement, operator: str) -> Version:
    (version,) = (s.version for s in requirement.specifier if s.operator == operator)
    return Version(version)
