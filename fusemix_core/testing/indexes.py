"""`check_index`: whether an index keeps its contract, on a few hundred vectors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fusemix_core.errors import ArtefactError, FusemixError
from fusemix_core.registry import Registry, registry
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
)
from fusemix_core.testing.index_case import (
    ALL,
    BEST,
    DIM,
    ENOUGH,
    KEPT,
    QUERIES,
    ROWS,
    best,
    everything,
    expect_answers,
    filled,
    folder,
    keys_of,
    numbers_of,
    rows_of,
    share,
    stopped_at,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect
from fusemix_core.vectors import Index

INDEX = Suite("index", least=17)
add_declaration_checks(INDEX)

_STEPS = 12
"""Calls of the system; some writer is stopped at each."""


def check_index(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check an index: a registered name, a ComponentSpec or a class, built with `options`.

    The kit's index has 300 vectors: if yours works otherwise from a number of vectors on, give
    options with which it does so from 100 on.

    Example:
        check_index("faiss", options={"least": 100}).raise_if_failed()
    """
    INDEX.expected(expected_failures)
    case = find("index", subject, options, registry)
    return INDEX.run(case.name, case, expected_failures)


@INDEX.check()
def is_an_index(case: ComponentCase) -> None:
    """It is an Index, and knows its folder, its width and the number of further columns."""
    with folder() as place:
        index = case.make(place, DIM, KEPT)
        expect(isinstance(index, Index), f"{type(index).__name__} is not a subclass of Index")
        own = (Path(index.folder), index.dim, index.kept)
        expect(own == (place, DIM, KEPT), f"folder, dim and kept are {own}")


@INDEX.check()
def finds_the_best(case: ComponentCase) -> None:
    """It finds nine of the ten largest inner products, and gives these exactly."""
    with folder() as place:
        expect_answers(filled(case, place), everything(), "filled")


@INDEX.check()
def largest_first(case: ComponentCase) -> None:
    """Products come in descending order, and no key twice."""
    with folder() as place:
        keys, products = filled(case, place).search(QUERIES, 40)
        expect((np.diff(products, axis=1) <= 0).all(), "a larger one comes after a smaller one")
        for row in numbers_of(keys).tolist():
            expect(len(set(row)) == len(row), "a key comes twice")


@INDEX.check()
def shapes(case: ComponentCase) -> None:
    """m queries have keys uint64 `[m, k, 2]` and products float32 `[m, k]`, k at most its size."""
    with folder() as place:
        index = filled(case, place, 30)
        for queries, count in ((1, 5), (4, 30), (3, 1000), (0, 5)):
            keys, products = index.search(QUERIES[:queries], count)
            wanted = (queries, min(count, 30))
            got = (keys.shape, products.shape)
            expect(got == ((*wanted, 2), wanted), f"{queries} queries for {count}: {got}")
            types = f"{keys.dtype} and {products.dtype}"
            expect(types == "uint64 and float32", f"keys and products are {types}")


@INDEX.check()
def empty(case: ComponentCase) -> None:
    """One without vectors finds nothing, has nothing to remove, and is not damaged."""
    with folder() as place:
        index = case.make(place, DIM, KEPT)
        expect(len(index) == 0 and index.keys.shape == (0, 2), "it has keys")
        found = index.search(QUERIES[:2], 5)[0].shape
        expect(found == (2, 0, 2), f"keys found: {list(found)}")
        expect(index.remove(keys_of([1])) == 0, "it says that it removed something")
        faults = [*index.check(), *index.repair()]
        expect(not faults, f"it reports {faults}")


@INDEX.check()
def only_allowed(case: ComponentCase) -> None:
    """Only what is allowed is found, by the order of `keys`, and as much as asked for."""
    with folder() as place:
        index = filled(case, place)
        index.remove(keys_of(range(0, 40, 2)))
        order = numbers_of(index.keys)
        for part in (0.5, 0.1, 0.02):
            allowed = np.random.default_rng(3).random(len(order)) < part
            there = np.zeros(ROWS, bool)
            there[order[allowed]] = True
            numbers = numbers_of(index.search(QUERIES, BEST, allowed)[0])
            wanted = best(there)
            same = numbers.shape == wanted.shape
            expect(same, f"{allowed.sum()} allowed: it finds {numbers.shape[1]} of them")
            expect(there[numbers].all(), "it finds what isn't allowed")
            found = share(numbers, wanted)
            expect(found >= ENOUGH, f"{allowed.sum()} allowed: it finds {found:.0%} of the best")
        none = index.search(QUERIES, 5, np.zeros(len(order), bool))[0].shape
        expect(none == (len(QUERIES), 0, 2), f"nothing allowed: it finds {list(none)}")


@INDEX.check()
def rows_as_given(case: ComponentCase) -> None:
    """`rows` returns vectors as they were added, in the order asked for; KeyError for others."""
    with folder() as place:
        index = filled(case, place)
        asked = [250, 2, 131, 2]
        rows = index.rows(keys_of(asked))
        same = rows.dtype == np.float32 and np.array_equal(rows, ALL[asked])
        expect(same, "other vectors than were added")
        try:
            index.rows(keys_of([3, ROWS + 5]))
        except KeyError:
            return
        expect(False, "a key that isn't there: no KeyError")


@INDEX.check()
def added_once(case: ComponentCase) -> None:
    """The vector of a key that is there already is left out."""
    with folder() as place:
        index = filled(case, place)
        index.add(keys_of(range(ROWS)), rows_of(ROWS, number=5))
        expect(len(index) == ROWS, f"it has {len(index)} vectors, not {ROWS}")
        expect(np.array_equal(index.rows(keys_of([7])), ALL[[7]]), "the later vector is kept")


@INDEX.check()
def removed(case: ComponentCase) -> None:
    """Removed vectors are counted, not found any more, and may be added again."""
    gone = np.arange(0, ROWS, 3)
    with folder() as place:
        index = filled(case, place)
        count = index.remove(keys_of([*gone, ROWS + 1]))
        expect(count == len(gone), f"{len(gone)} removed, it says {count}")
        expect_answers(index, everything(but=gone), "some removed")
        index.add(keys_of(gone), ALL[gone])
        index.settle()
        expect_answers(index, everything(), "added again")


@INDEX.check()
def compacted(case: ComponentCase) -> None:
    """`compact` and `settle` change no answer."""
    gone = np.arange(100, 170)
    with folder() as place:
        index = filled(case, place)
        index.remove(keys_of(gone))
        for name in ("compact", "settle"):
            getattr(index, name)()
            expect_answers(index, everything(but=gone), f"after `{name}`")
            again = case.make(place, DIM, KEPT)
            expect_answers(again, everything(but=gone), f"after `{name}`, opened again")


@INDEX.check()
def reopened(case: ComponentCase) -> None:
    """Opened again, in another folder too, it answers as before."""
    with folder() as place:
        filled(case, place).remove(keys_of(range(20)))
        expect_answers(case.make(place, DIM, KEPT), everything(but=range(20)), "opened again")
        other = place.with_name("moved")
        os.rename(place, other)
        expect_answers(case.make(other, DIM, KEPT), everything(but=range(20)), "moved")


@INDEX.check()
def refreshed(case: ComponentCase) -> None:
    """An open index answers as before until `refresh`, whatever another one writes."""
    gone = np.unique(best(everything()))
    with folder() as place:
        reader, writer = filled(case, place), case.make(place, DIM, KEPT)
        writer.remove(keys_of(gone))
        writer.compact()
        writer.settle()
        expect_answers(reader, everything(), "not refreshed")
        reader.refresh()
        expect_answers(reader, everything(but=gone), "refreshed")


@INDEX.check()
def goes_on(case: ComponentCase) -> None:
    """A writer heeds what another one wrote since it was opened."""
    with folder() as place:
        first = filled(case, place, 200)
        second = case.make(place, DIM, KEPT)
        first.add(keys_of(range(200, 250)), ALL[200:250])
        second.add(keys_of(range(250, ROWS)), ALL[250:])
        expect_answers(case.make(place, DIM, KEPT), everything(), "two wrote in turn")


@INDEX.check()
def damage(case: ComponentCase) -> None:
    """A flipped byte of any file is reported or harmless, and mended by `repair` and `add`."""
    with folder() as place:
        filled(case, place)
        contents = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
        draw = np.random.default_rng(0)
        for path, content in contents.items():
            for at in draw.integers(0, len(content), 3) if content else ():
                broken = bytearray(content)
                broken[at] ^= 1 << int(draw.integers(0, 8))
                path.write_bytes(broken)
                _expect_mended(case, place, f"{path.name}, byte {at} flipped")
                for other in place.rglob("*"):
                    if other.is_file():
                        other.unlink()
                for other, whole in contents.items():
                    other.write_bytes(whole)


def _expect_mended(case: ComponentCase, place: Path, what: str) -> None:
    index = case.make(place, DIM, KEPT)
    if not index.check():
        expect_answers(index, everything(), f"{what}, not reported")
    index.repair()
    faults = index.check()
    expect(not faults, f"{what}, repaired: {' '.join(faults)}")
    index.add(keys_of(range(ROWS)), ALL)
    index.settle()
    expect_answers(case.make(place, DIM, KEPT), everything(), f"{what}, mended")


@INDEX.check()
def stopped(case: ComponentCase) -> None:
    """Stopped at any flush or rename, a write is complete or has not happened, and can go on."""
    new = range(200, ROWS)
    made = [everything(but=gone) for gone in (new, [*range(20), *new], range(20))]
    states = {int(state.sum()): state for state in made}
    for call in ("replace", "fsync"):
        for last in range(1, _STEPS):
            with folder() as place:
                filled(case, place, 200)
                ended = stopped_at(lambda: _writes(case, place), call, last)  # noqa: B023
                left = case.make(place, DIM, KEPT)
                when = f"stopped at os.{call} number {last}"
                expect(len(left) in states, f"{when}: it has {len(left)} vectors")
                expect_answers(left, states[len(left)], when)
                _writes(case, place)
                expect_answers(case.make(place, DIM, KEPT), everything(but=range(20)), when)
            if ended:
                break


def _writes(case: ComponentCase, place: Path) -> None:
    index = case.make(place, DIM, KEPT)
    index.remove(keys_of(range(20)))
    index.add(keys_of(range(200, ROWS)), ALL[200:])
    index.settle()


@INDEX.check()
def refuses(case: ComponentCase) -> None:
    """Rows of another width, with NaN, or more than keys are refused, and nothing changes."""
    wrong = {
        "rows of another width": (keys_of([900]), ALL[:1, 1:]),
        "rows with NaN": (keys_of([901]), np.full((1, DIM + KEPT), np.nan, np.float32)),
        "more rows than keys": (keys_of([902]), ALL[:2]),
    }
    with folder() as place:
        index = filled(case, place)
        for what, (keys, rows) in wrong.items():
            try:
                index.add(keys, rows)
            except (ValueError, FusemixError):
                continue
            expect(False, f"it takes {what}")
        expect_answers(index, everything(), "after what it refused")


@INDEX.check()
def unwritable(case: ComponentCase) -> None:
    """If its folder can't be made, adding is an ArtefactError."""
    with folder() as place:
        place.parent.joinpath("file").write_bytes(b"")
        index = case.make(place.parent / "file" / "vectors", DIM, KEPT)
        try:
            index.add(keys_of([1]), ALL[:1])
        except ArtefactError:
            return
        expect(False, "it adds to a folder that can't be there")


@INDEX.check()
def deterministic(case: ComponentCase) -> None:
    """The same query has the same answer by itself, among others and in other threads."""
    with folder() as place:
        index = filled(case, place)
        keys, products = index.search(QUERIES, BEST)
        with ThreadPoolExecutor(4) as threads:
            apart = list(threads.map(lambda q: index.search(q[None], BEST), QUERIES))
        expect(
            all(np.array_equal(a[0][0], b) for a, b in zip(apart, keys, strict=True)), "other keys"
        )
        near = np.concatenate([one[1] for one in apart])
        expect(np.allclose(near, products, atol=1e-5), "other products")


@INDEX.check()
def input_unmodified(case: ComponentCase) -> None:
    """Keys, rows, queries and what is allowed stay as they were."""
    keys, rows, queries, allowed = keys_of(range(50)), ALL[:50].copy(), QUERIES.copy(), everything()
    with folder() as place:
        index = case.make(place, DIM, KEPT)
        index.add(keys, rows)
        index.settle()
        index.search(queries, 5, allowed[:50])
        index.remove(keys[:5])
    same = (np.array_equal(keys, keys_of(range(50))), np.array_equal(rows, ALL[:50]))
    expect(all(same), "it changed keys or rows")
    expect(np.array_equal(queries, QUERIES) and allowed.all(), "it changed queries or `allowed`")


@INDEX.check()
def surroundings(case: ComponentCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""

    def use() -> None:
        with folder() as place:
            filled(case, place).search(QUERIES, 5)

    expect_nothing_changed(use)
