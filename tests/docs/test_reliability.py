"""Every test that docs/reliability.md names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_promise_names_a_test_that_is_there():
    page = (ROOT / "docs/reliability.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and "held by" not in line]
    assert len(rows) > 20
    for row in rows:
        cell = row.rstrip("| ").rpartition("|")[2]
        if "the same" not in cell:
            assert "::test_" in cell, row
        path = None
        for file, name in re.findall(r"`([\w/.-]*)::(test_\w+)`", cell):
            path = file or path
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), (
                path,
                name,
            )
