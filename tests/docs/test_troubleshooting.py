"""Every message that the page of troubleshooting explains exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def literals():
    """All texts of the sources, with … in place of what is filled in."""
    for path in (ROOT / "fusemix_core").rglob("*.py"):
        tree = ast.parse(path.read_text())
        docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) in docstrings:
                continue
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_every_message_of_the_page_is_one_of_ours():
    page = (ROOT / "docs/troubleshooting.md").read_text()
    named = re.findall(r"^### `(.+?)`", page, re.MULTILINE)
    texts = set(literals())
    assert len(named) > 12
    for message in named:
        assert any(message in text for text in texts), message
