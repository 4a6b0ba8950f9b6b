"""`check_reader`: whether a reader keeps its contract, on a source of its kind and on damaged
ones."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.references import Fault, Reference, Sidecar
from fusemix_core.data.rows import SPLIT_NAMES, Note, Reader, Row
from fusemix_core.errors import ContractError, DataError
from fusemix_core.registry import Registry, registry
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect

READER = Suite("reader", least=10)
add_declaration_checks(READER)

MOST_SECONDS = 20.0
"""How long a reader may take with a damaged copy of its small source."""
_VALUES = (str, bytes, bool, int, float, Fault, Sidecar, Path, Reference)
_NOISE = bytes(range(256)) * 8


@dataclass
class ReaderCase(ComponentCase):
    """A reader and a source that it reads: a file or a folder, which is copied before use."""

    source: Path | None = None

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """A copy of the source in a folder of its own."""
        with TemporaryDirectory(prefix="fusemix-kit-") as folder:
            where = Path(folder)
            if self.source is None:
                made = self.target.sample(where) if hasattr(self.target, "sample") else None
                if made is None:
                    raise ContractError(
                        f"Reader '{self.name}'",
                        "a source to read, from its classmethod `sample(folder)` or as `source`",
                        "none",
                    )
                yield made
            elif self.source.is_dir():
                yield Path(shutil.copytree(self.source, where / self.source.name))
            else:
                yield Path(shutil.copy(self.source, where / self.source.name))

    def read(self, path: Path) -> list[Row | Rejected | Note]:
        """All that a new reader gives for a path."""
        return list(self.make().rows(path))


def check_reader(
    subject: Subject,
    source: str | Path | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check a reader: a registered name, a ComponentSpec or a class, built with `options`.

    Args:
        source: A small file or folder of its kind, with two rows or more. The kit reads copies,
            damaged ones too. By default what the reader's `sample(folder)` writes.

    Example:
        check_reader("delimited", "pairs.csv").raise_if_failed()
    """
    READER.expected(expected_failures)
    case = prepare(subject, source, options=options, registry=registry)
    return READER.run(case.name, case, expected_failures)


def prepare(
    subject: Subject,
    source: str | Path | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    registry: Registry = registry,
) -> ReaderCase:
    """The case of a reader."""
    case = find("reader", subject, options, registry)
    own = {f.name: getattr(case, f.name) for f in fields(ComponentCase)}
    return ReaderCase(**own, source=None if source is None else Path(source))


@READER.check()
def is_a_reader(case: ReaderCase) -> None:
    """It is a Reader, and can be made without arguments."""
    name = getattr(case.target, "__name__", repr(case.target))
    expect(isinstance(case.target(), Reader), f"{name} is not a subclass of Reader")


@READER.check()
def knows_its_own(case: ReaderCase) -> None:
    """It matches a source of its kind, and nothing that is of another."""
    with case.copy() as path:
        expect(case.make().matches(path) is True, f"it does not match {path.name}")
    with TemporaryDirectory(prefix="fusemix-kit-") as folder:
        other = Path(folder, "something.of-no-known-kind")
        other.write_bytes(_NOISE)
        expect(not case.make().matches(other), f"it matches {other.name}, which is noise")
        empty = Path(folder, "empty")
        empty.mkdir()
        if not getattr(case.target, "general", False):
            expect(not case.make().matches(empty), "it matches an empty folder")


@READER.check()
def rows(case: ReaderCase) -> None:
    """It yields rows, each with the file it is in, a number from 1 on, and named values."""
    with case.copy() as path:
        found = case.read(path)
        for one in found:
            known = isinstance(one, Row | Rejected | Note)
            expect(known, f"it yields a {type(one).__name__}, not Row, Rejected or Note")
        own = [one for one in found if isinstance(one, Row)]
        expect(len(own) >= 2, f"{len(own)} rows; a source with two or more is needed")
        for row in own:
            inside = Path(row.path) == path or path in Path(row.path).parents
            expect(isinstance(row.path, str) and inside, f"row.path is {row.path!r}")
            expect(isinstance(row.number, int) and row.number >= 1, f"number {row.number!r}")
            expect(row.values and all(isinstance(n, str) for n in row.values), "unnamed values")
            split = row.split is None or row.split.lower() in SPLIT_NAMES
            expect(split, f"split is {row.split!r}")
        places = [(row.path, row.number) for row in own]
        expect(len(set(places)) == len(places), "two rows have one number")


@READER.check()
def values(case: ReaderCase) -> None:
    """A cell is None, a text, a number, bytes, a path, a reference, a Fault, or a list of
    these."""
    with case.copy() as path:
        for row in (one for one in case.read(path) if isinstance(one, Row)):
            for name, value in row.values.items():
                for one in value if isinstance(value, list) else [value]:
                    usable = one is None or isinstance(one, _VALUES)
                    expect(usable, f"column '{name}' holds a {type(one).__name__}")


@READER.check()
def same_again(case: ReaderCase) -> None:
    """The same source gives the same rows in the same order."""
    with case.copy() as path:
        first, second = map(_plain, case.read(path)), map(_plain, case.read(path))
        expect(list(first) == list(second), "a second reading gives other rows")


@READER.check()
def read_twice_at_once(case: ReaderCase) -> None:
    """One reader can be in two readings at a time."""
    with case.copy() as path:
        reader = case.make()
        a, b = iter(reader.rows(path)), iter(reader.rows(path))
        pairs = list(zip(a, b, strict=False))
        wanted = [_plain(one) for one in case.read(path)]
        both = [[_plain(one) for one in side] for side in zip(*pairs, strict=True)]
        expect(both == [wanted, wanted], "two readings in turn give other rows than one")


@READER.check()
def stops_early(case: ReaderCase) -> None:
    """Reading may stop after the first row; the source can be deleted then."""
    with case.copy() as path:
        found = case.make().rows(path)
        expect(hasattr(found, "__iter__"), f"rows gives a {type(found).__name__}")
        list(islice(found, 1))
        close = getattr(found, "close", None)
        if close is not None:
            close()
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@READER.check()
def leaves_the_source_alone(case: ReaderCase) -> None:
    """Reading changes no file, and leaves none behind."""
    with case.copy() as path:
        before = _contents(path.parent)
        case.read(path)
        after = _contents(path.parent)
        both = before.keys() | after.keys()
        changed = sorted(str(p) for p in both if before.get(p) != after.get(p))
        expect(not changed, f"changed or new: {', '.join(changed)}")


@READER.check()
def a_missing_source(case: ReaderCase) -> None:
    """A source that is not there is a DataError, or no match and no rows."""
    with TemporaryDirectory(prefix="fusemix-kit-") as folder:
        path = Path(folder, "absent")
        expect(not case.make().matches(path), "it matches a path that does not exist")
        found = _outcome(case, path)
        expect(isinstance(found, str) or not found, f"{len(found)} rows of nothing")


@READER.check()
def damaged_sources(case: ReaderCase) -> None:
    """Of an emptied, cut, overwritten or mixed-up source it gives rows or rejections, or raises
    DataError: nothing else, and soon."""
    for name, damage in _DAMAGES.items():
        with case.copy() as path:
            victim = _largest(path)
            victim.write_bytes(damage(victim.read_bytes()))
            started = time.perf_counter()
            _outcome(case, path, name)
            seconds = time.perf_counter() - started
            expect(seconds < MOST_SECONDS, f"{name}: it took {seconds:.0f} s")


@READER.check()
def errors_name_the_source(case: ReaderCase) -> None:
    """A DataError for an unusable source says which it is."""
    with case.copy() as path:
        _largest(path).write_bytes(_NOISE)
        found = _outcome(case, path)
        if isinstance(found, str):
            expect(path.name in found or str(path.parent) in found, f"it only says: {found}")


@READER.check()
def surroundings(case: ReaderCase) -> None:
    """Random states, settings, environment and logging are as before."""
    with case.copy() as path:
        expect_nothing_changed(lambda: case.read(path))


_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "cut in half": lambda data: data[: len(data) // 2],
    "cut at the end": lambda data: data[:-7],
    "noise": lambda data: _NOISE,
    "overwritten in the middle": lambda data: (
        data[: len(data) // 3] + _NOISE[:64] + data[len(data) // 3 + 64 :]
    ),
    "zeros at the start": lambda data: bytes(16) + data[16:],
    "not UTF-8 anywhere": lambda data: b"\xff\xfe\xfd" + data,
}


def _outcome(case: ReaderCase, path: Path, what: str = "") -> list[Any] | str:
    """What reading gives: rows, or the text of a DataError."""
    try:
        found = case.read(path)
    except DataError as error:
        return f"{error} {error.path or ''}"
    except OSError as error:  # fusemix turns these into a DataError that names the file
        return f"{path}: {error}"
    except Exception as error:
        expect(False, f"{what}: it raises {type(error).__name__}: {error}".removeprefix(": "))
        raise
    for one in found:
        expect(isinstance(one, Row | Rejected | Note), f"{what}: it yields {type(one).__name__}")
    return found


def _largest(path: Path) -> Path:
    """The file itself, or the largest one in a folder."""
    if path.is_file():
        return path
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: (p.stat().st_size, p))


def _plain(one: Row | Rejected | Note) -> str:
    return repr(one)


def _contents(folder: Path) -> dict[Path, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
