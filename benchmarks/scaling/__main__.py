"""Writes the page, its figures and the packaged advice: `python -m benchmarks.scaling`."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.results import RESULTS
from benchmarks.scaling import advice
from benchmarks.scaling.about import read_about
from benchmarks.scaling.page import FIGURES, draw, page
from fusemix_core.benchmark.advice import TABLE
from fusemix_core.benchmark.lines import NAME, read_lines

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder of scaling/ and hard/ [%(default)s]"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="[%(default)s]")
    args = parser.parse_args()
    if args.results == RESULTS:
        TABLE.write_text(packaged_table(), encoding="utf-8")
        print(TABLE)
    if (text := page_text(args.results)) is None:
        print(f"No page: {args.results / 'scaling' / NAME} has no lines yet.")
        return
    args.page.parent.mkdir(parents=True, exist_ok=True)
    args.page.write_text(text, encoding="utf-8")
    draw(read_lines(args.results / "scaling" / NAME), args.page.parent / FIGURES)
    print(args.page)


def packaged_table() -> str:
    """What the package advises by, from the kept results."""
    names = advice.sources()
    settings = advice.settings_of_methods(names)
    return advice.table(advice.places(advice.lines_of(names), read_about(), settings))


def page_text(results: Path = RESULTS) -> str | None:
    """The page of the results; None as long as there are none."""
    lines = read_lines(results / "scaling" / NAME)
    if not lines:
        return None
    about = read_about()
    places = advice.places(lines, about, advice.settings_of_methods(["scaling"]))
    return page(lines, read_lines(results / "hard" / NAME), about, places)


if __name__ == "__main__":
    main()
