"""Files that a repository's host reads: complete, and of one version with the code."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import fusemix_core

ROOT = Path(__file__).parents[2]


def test_the_citation_is_valid_and_of_this_version():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert found["cff-version"] == "1.2.0" and found["type"] == "software"
    assert found["version"] == fusemix_core.__version__ and found["license"] == "Apache-2.0"
    assert found["message"] and found["title"] and found["authors"][0]["name"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", str(found["date-released"]))
    for one in found["references"]:
        assert one["type"] and one["title"] and all(a["family-names"] for a in one["authors"])


def test_the_changelog_has_this_version_and_a_date():
    versions = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == "Unreleased" or versions[0].startswith(fusemix_core.__version__)
    assert re.fullmatch(
        re.escape(fusemix_core.__version__) + r" \(\d{4}-\d\d-\d\d\)",
        next(v for v in versions if v != "Unreleased"),
    )


def test_issue_forms_ask_what_is_needed():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.stem == "config":
            continue
        assert form["name"] and form["description"]
        ids = [one["id"] for one in form["body"] if one["type"] != "markdown"]
        assert len(set(ids)) == len(ids) > 1
        assert all(one["attributes"].get("label") for one in form["body"] if "id" in one)


def test_their_links_lead_somewhere():
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"):
        for link in re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text()):
            assert link.startswith("https://") or (ROOT / link).exists(), (name, link)
