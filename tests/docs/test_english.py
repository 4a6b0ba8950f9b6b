"""Every page, docstring and message reads once: the number of banned patterns may only fall.

The patterns are in `english.py`. Above the limit the test names each place. If you have fewer,
lower the number here.
"""

import pytest
from english import PATTERNS, found, page_pieces, pages, source_pieces, sources

PAGES = 75
SOURCES = {
    "headless what": 280,
    "who as a noun": 14,
    "fronted participle": 5,
    "is no N": 3,
    "of which": 51,
    "where for if": 15,
    "tell, say for report": 100,
    "stand for appear": 32,
    "alone for only": 5,
    "hold for contain": 92,
    "per": 5,
    "kin": 1,
}


def test_pages_have_no_more_of_the_banned_patterns():
    hits = [
        f"{name} | {place}"
        for name, places in found(p for page in pages() for p in page_pieces(page)).items()
        for place in places
    ]
    assert len(hits) <= PAGES, "\n".join(hits)


@pytest.fixture(scope="module")
def in_sources():
    return found(p for path in sources() for p in source_pieces(path))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_docstrings_and_messages_have_no_more_of(pattern, in_sources):
    assert len(in_sources[pattern]) <= SOURCES[pattern], "\n".join(in_sources[pattern])


@pytest.mark.parametrize(
    ("pattern", "bad", "good"),
    [
        ("headless what", "What is finished is not done again.", "What does it cost?"),
        ("is no N", "'x' is no split.", "There is no split."),
        ("where for if", "It is skipped where it is empty.", "See where it is empty."),
        ("per", "one row a fit", "one row per fit"),
        ("of which", "a model of which nothing moves", "a model that does not move"),
        ("alone for only", "from metadata alone", "from metadata only"),
        ("tell, say for report", "the user is told of it", "the user sees a note"),
        ("fronted participle", "Measured are the directions.", "The directions are measured."),
    ],
)
def test_a_pattern_sees_what_it_bans_and_lets_its_cure_pass(pattern, bad, good, tmp_path):
    from english import Piece

    assert found([Piece("here", bad)])[pattern] and not found([Piece("here", good)])[pattern]
