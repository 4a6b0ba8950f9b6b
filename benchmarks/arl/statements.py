"""The statements of ChEBI-20's descriptions: what a molecule is, and which roles it has."""

from __future__ import annotations

import re
from collections.abc import Iterator

_IS = re.compile(r"\bIt is (?:also )?(an? [^;]+?)\.(?:\s|$)")
_ROLE = re.compile(r"\bIt has a role as (an? [^;]+?)\.(?:\s|$)")
_FIRST = re.compile(
    r"^The molecule is (an? (?:member of the class of )?.+?)"
    r"(?:\.|,| (?:that|in which|having|obtained|consisting|comprising|with|resulting|derived|where"
    r"|and|arising|carrying|composed|of) )"
)
_ARTICLE = re.compile(r"^(?:an? )?(?:member of (?:the class of )?)?")
_NOT = ("conjugate", "enantiomer", "tautomer", "member of", "diastereoisomer", "major ")


def statements(description: str) -> Iterator[tuple[str, str]]:
    """(relation, tail) of each statement of a description.

    Example:
        list(statements("The molecule is a diol that is … It has a role as a metabolite."))
    """
    for relation, pattern in (("is a", _FIRST), ("is a", _IS), ("has role", _ROLE)):
        for found in pattern.finditer(description):
            for part in re.split(r", | and (?=an? )", found[1]):
                name = _ARTICLE.sub("", part.strip().removeprefix("and ").strip())
                if 3 < len(name) < 60 and not name.startswith(_NOT):
                    yield relation, name
