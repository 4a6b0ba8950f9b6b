"""The prose of the project, and the patterns of English that make a reader read twice.

Prose are the pages without code, the docstrings, and the messages (texts with a space that a call
or a `raise` gets). The patterns are those of translated English: a headless "what", "is no N", "of
which", "where" for "if", "told" for "reported", "alone" for "only", "a line a fit".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
START = r"(?:^|(?<=[.;:!?] )|(?<=\| ))"
UNITS = (
    "line|row|column|fit|step|item|token|class|pair|method|modality|set|file|page|key|query|command"
    "|plugin|direction|feature|process|batch|epoch|size|caption|shard|encoder|seed|split|number|word"
    "|layer|sample|machine|image|text|setting|table|place|test|view|member"
)
MIDDLE = "with|by|is|of|for|in|to|has|as|at|on|and|from|or|than|makes|are|that|was|gives|gets|takes"
PATTERNS = {
    "headless what": (
        rf"{START}What (?!to\b|if\b|about\b)[^.?!:|]*[a-z)`][.:](?:\s|$)"
        r"|\b(?:of|by|for|from|in|with|than|all|against|as|but) what (?!to\b|you can do)"
    ),
    "who as a noun": r"\b(?:for|by|of|to|and) who\b|\b[Ww]hoever\b",
    "fronted participle": (
        rf"{START}(?:Measured|Counted|Shown|Known|Left|Kept|Found|Missing|Said|Told|Given|Taken"
        r"|Chosen|Compared|Refused|Tested|Drawn|Written|Saved|Searched|Needed|Wanted) "
        r"(?:is|are|was|were)\b"
        rf"|{START}(?:Of|By|In|To) [a-z ]+ (?:is|are|stands?|comes?) [a-z]+ed\b"
    ),
    "is no N": (
        r"(?<![Tt]here )\b(?:is|are|was|were|be) no "
        r"(?!longer|more|less|fewer|better|worse|one|way|need|larger|smaller|greater|slower|faster"
        r"|different|better|further|later|earlier|wider)\w"
    ),
    "of which": r"\bof (?:which|whose|whom)\b|\bto which\b(?= [a-z]+ (?:is|are)\b)",
    "where for if": (
        r"(?<!from )(?<!know )(?<!knows )(?<!says )(?<!say )(?<![Ss]ee )(?<!show )(?<!shows )"
        r"(?<!of )"
        r"(?<!place )(?<!places )(?<!folder )(?<!and )(?<!shape )(?<!are )(?!Where the \w+ are)"
        r"\b[Ww]here (?:it|they|that|this|there|these|those|nothing|no|both|one|all|any|it's|memory"
        r"|a|an|the [a-z]+) "
        r"(?:is|are|was|has|have|can|can't|does|do|doesn't|don't|fits?|fails?|pays|lacks?|says?"
        r"|needs?|knows?|takes?|gives?|agree|differ|allows?|aren't|isn't)\b"
    ),
    "tell, say for report": r"\b[Tt]old\b|\b[Tt]ells?\b|\b(?:is|are|and|,) said\b",
    "stand for appear": r"\b[Ss]tands?\b(?!-)|\bstood\b",
    "alone for only": r"\balone\b",
    "hold for contain": r"(?<!can't )\bholds?\b(?! (?:in memory|still|back|these|this|those|true))",
    "per": (
        rf"\b(?:a|an|one|two|three|\d[\d,.]*) (?!(?:{MIDDLE})\b)[\w-]+ (?:a|an) (?:{UNITS})\b"
        r"(?! (?:of|by|that|with)\b)"
    ),
    "kin": r"\band its kin\b",
}


@dataclass(frozen=True)
class Piece:
    """A paragraph, cell, docstring or message, and where it is."""

    where: str
    text: str


def page_pieces(path: Path) -> Iterator[Piece]:
    """Paragraphs, list items and cells of a page, without code, formulae and links' addresses."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"^(```|~~~).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$|<!--.*?-->", "", text, flags=re.DOTALL)
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*] |\d+\. |#|\|))", text):
        for cell in block.split(" | ") if block.startswith("|") else [block]:
            if plain := _plain(cell):
                yield Piece(path.relative_to(ROOT).as_posix(), plain)


def source_pieces(path: Path) -> Iterator[Piece]:
    """Docstrings and messages of a module."""
    nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    docstrings = set()
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(id(node.value))
    inside = {id(part) for n in nodes if isinstance(n, ast.JoinedStr) for part in n.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            parts = [str(v.value) if isinstance(v, ast.Constant) else "N" for v in node.values]
            text = "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in inside:
                continue
            text = node.value
        else:
            continue
        if " " not in text.strip():
            continue
        where = f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
        blocks = (
            re.split(r"\n\s*\n|\n(?=\s*(?:\w+: |- ))", text) if id(node) in docstrings else [text]
        )
        for block in blocks:
            if not re.match(r"\s*(?:>>>|fusemix )", block) and (plain := _plain(block)):
                yield Piece(where, plain)


def _plain(text: str) -> str:
    text = re.sub(r"``.*?``|`[^`]*`", "X", text)
    text = re.sub(r"\$[^$]*\$", "X", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"[*_#]{1,3}(?=\w)|(?<=\w)[*_]{1,3}(?=\W|$)", "", text)
    return " ".join(text.lstrip("#|-* ").split())


def found(pieces: Iterator[Piece]) -> dict[str, list[str]]:
    """pattern → "place: the words", of all pieces."""
    hits: dict[str, list[str]] = {name: [] for name in PATTERNS}
    for piece in pieces:
        for name, pattern in PATTERNS.items():
            for match in re.finditer(pattern, piece.text):
                words = piece.text[max(0, match.start() - 30) : match.end() + 40]
                hits[name].append(f"{piece.where}: …{words}…")
    return hits


def pages() -> list[Path]:
    """Every page that a user reads; generated ones too."""
    return [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").rglob("*.md")),
        *sorted(ROOT.glob("plugins/*/README.md")),
        *sorted((ROOT / "examples").rglob("*.md")),
    ]


def sources() -> list[Path]:
    """The modules of the core and of the plugins."""
    return [
        *sorted((ROOT / "fusemix_core").rglob("*.py")),
        *sorted(p for p in ROOT.glob("plugins/*/src/**/*.py")),
    ]
