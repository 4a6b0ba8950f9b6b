"""`check_medium`: whether a medium keeps its contract."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fusemix_core.data.media import Medium, Shown
from fusemix_core.errors import ContractError, DataError
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import EncoderSpec
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
)
from fusemix_core.testing.items import fingerprints
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect

MEDIUM = Suite("medium", least=7)
add_declaration_checks(MEDIUM)


def check_medium(
    subject: Subject,
    *,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check a medium: a registered name, a ComponentSpec or a class.

    The items are those of its `samples`, or of its `cells` if it is inline.

    Example:
        check_medium("image").raise_if_failed()
    """
    MEDIUM.expected(expected_failures)
    case = find("medium", subject, None, registry)
    return MEDIUM.run(case.name, case, expected_failures)


def values(case: ComponentCase) -> list[Any]:
    """What `decode` may get: texts of an inline medium, else bytes. Raises ContractError."""
    medium, spec = case.make(), _spec(case)
    if medium.inline:
        found = [medium.cell(cell) for cell in medium.cells()]
    elif medium.opened:
        found = []
    else:
        found = [medium.pack(item) for item in medium.samples(spec)]
    if len(found) < 2 and not medium.opened:
        method = "cells()" if medium.inline else "samples(spec)"
        raise ContractError(
            f"Medium '{case.name}'", f"two items or more from `{method}`", str(found)
        )
    return found


def _spec(case: ComponentCase) -> EncoderSpec:
    rate = 16_000 if case.make().sampled else None
    name = getattr(case.make(), "name", "") or case.name
    return EncoderSpec(
        name="kit", modality=name, takes=name, target="nowhere:Nothing", sample_rate=rate
    )


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and fingerprints([a]) == fingerprints([b])


@MEDIUM.check()
def is_a_medium(case: ComponentCase) -> None:
    """It is a Medium, made without arguments, and its `name` is the registered one."""
    medium = case.target()
    expect(isinstance(medium, Medium), f"{type(medium).__name__} is not a subclass of Medium")
    expect(medium.name, "it has no name")
    registered = case.spec is None or case.spec.name == medium.name
    expect(registered, f"it is called '{medium.name}', and registered as '{case.name}'")


@MEDIUM.check(when=lambda case: not case.make().opened)
def decodes(case: ComponentCase) -> None:
    """Different values give different items, and the same value the same item."""
    medium, spec = case.make(), _spec(case)
    items = [medium.decode(value, spec.sample_rate) for value in values(case)]
    again = [case.make().decode(value, spec.sample_rate) for value in values(case)]
    expect(fingerprints(items) == fingerprints(again), "a second decoding gives other items")
    expect(len(set(fingerprints(items))) > 1, "all values give one item")


@MEDIUM.check(when=lambda case: not case.make().inline and not case.make().opened)
def packs_without_loss(case: ComponentCase) -> None:
    """`decode(pack(item))` is the item."""
    medium, spec = case.make(), _spec(case)
    for item in medium.samples(spec):
        found = medium.decode(medium.pack(item), spec.sample_rate)
        expect(_same(found, item), f"packed and decoded, a {type(item).__name__} is another")


@MEDIUM.check(when=lambda case: not case.make().inline)
def paths(case: ComponentCase) -> None:
    """A path, as Path or str, is read as its bytes are."""
    medium, spec = case.make(), _spec(case)
    with TemporaryDirectory(prefix="fusemix-kit-") as folder:
        for number, value in enumerate(values(case) or [b"any", b"file"]):
            path = Path(folder, f"{number}.item")
            path.write_bytes(value)
            wanted = path if medium.opened else medium.decode(value, spec.sample_rate)
            for given in (path, str(path)):
                found = medium.decode(given, spec.sample_rate)
                expect(_same(found, wanted), f"a {type(given).__name__} gives another item")


@MEDIUM.check(when=lambda case: not case.make().inline)
def missing_files(case: ComponentCase) -> None:
    """A path without a file, and a folder, are a DataError."""
    with TemporaryDirectory(prefix="fusemix-kit-") as folder:
        for path in (Path(folder, "absent"), Path(folder)):
            _expect_refused(case, path, f"'{path.name}'")


@MEDIUM.check(when=lambda case: case.make().inline)
def cells_are_texts(case: ComponentCase) -> None:
    """A cell becomes a str by which its item is known, always the same."""
    medium = case.make()
    for cell in medium.cells():
        found = medium.cell(cell)
        expect(type(found) is str and found, f"cell gives {found!r}")
        expect(case.make().cell(cell) == found, "a second time the cell gives another text")
        found.encode()
        if medium.joined and isinstance(cell, Mapping):
            turned = dict(reversed(list(cell.items())))
            expect(medium.cell(turned) == found, "the order of columns changes the item")


@MEDIUM.check()
def other_things_are_refused(case: ComponentCase) -> None:
    """What is not an item of it is a DataError."""
    inline = case.make().inline
    for value in (object(), [object()], *case.make().wrong()):
        if not (inline and isinstance(value, bytes)):  # a cell may hold an item as bytes
            _expect_refused(case, value, f"{value!r:.40}")


@MEDIUM.check(when=lambda case: not case.make().opened)
def damaged_values(case: ComponentCase) -> None:
    """Of cut and overwritten values it makes an item or a DataError."""
    spec = _spec(case)
    for value in values(case)[:3]:
        noise: Any = "\x00\x01{[<" if isinstance(value, str) else bytes(range(256))
        for damaged in (value[:0], value[: len(value) // 2], value[:-1], noise, noise + value):
            try:
                case.make().decode(damaged, spec.sample_rate)
            except DataError:
                continue
            except Exception as error:
                expect(False, f"{damaged[:20]!r}: {type(error).__name__}: {error}")


@MEDIUM.check(when=lambda case: not case.make().opened)
def threads(case: ComponentCase) -> None:
    """Decoding in threads gives the same."""
    medium, spec, given = case.make(), _spec(case), values(case) * 4
    wanted = fingerprints([medium.decode(value, spec.sample_rate) for value in given])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda value: medium.decode(value, spec.sample_rate), given))
    expect(fingerprints(found) == wanted, "decoding in threads gives other items")


@MEDIUM.check()
def shows(case: ComponentCase) -> None:
    """It shows an item as text, an image or a note, even if it can't be read."""
    medium, spec = case.make(), _spec(case)

    def broken() -> Any:
        raise DataError("it is gone")

    for value in values(case)[:2] or ["a.file"]:
        for load in (lambda v=value: medium.decode(v, spec.sample_rate), broken):
            shown = medium.show("its name", load)
            expect(isinstance(shown, Shown), f"show gives a {type(shown).__name__}")
            expect(shown.text or shown.note or shown.image, "it shows nothing")


@MEDIUM.check()
def surroundings(case: ComponentCase) -> None:
    """Random states, settings, environment and logging are as before."""
    spec = _spec(case)
    given = values(case)
    expect_nothing_changed(lambda: [case.make().decode(v, spec.sample_rate) for v in given])


def _expect_refused(case: ComponentCase, value: Any, what: str) -> None:
    try:
        if case.make().inline:
            case.make().cell(value)
        else:
            case.make().decode(value, _spec(case).sample_rate)
    except DataError:
        return
    except Exception as error:
        expect(False, f"{what}: {type(error).__name__}, not DataError: {error}")
    expect(False, f"{what} is taken")
