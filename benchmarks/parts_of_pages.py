"""Writes the parts of pages that results decide."""

from __future__ import annotations

import re
from pathlib import Path


def put(page: Path, name: str, text: str) -> None:
    """Write a text into a page, between `<!-- NAME -->` and `<!-- end of NAME -->`."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    old = page.read_text(encoding="utf-8")
    block = f"{start}\n{text.strip()}\n{end}"
    pattern = re.escape(start) + r".*?" + re.escape(end)
    new, count = re.subn(pattern, lambda _: block, old, flags=re.DOTALL)
    assert count == 1, f"{page} has {count} parts {name}"
    page.write_text(new, encoding="utf-8")
