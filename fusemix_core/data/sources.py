"""From what the user names to files and the readers that read them."""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

from fusemix_core.config import DataConfig
from fusemix_core.data.dataset import Rejected
from fusemix_core.data.foreign import head_of, what_is
from fusemix_core.data.held import HeldReader, held
from fusemix_core.data.layouts import MANIFESTS
from fusemix_core.data.rows import MAX_PATH, Block, Note, Reader, Row, is_missing
from fusemix_core.errors import ContractError, DataError, FusemixError, short
from fusemix_core.registry import CORE, registry
from fusemix_core.specs import ComponentSpec

_MOST_FILES = 100_000
_PEEK = 1000


def expand(source: str) -> list[Path]:
    """The existing files or folders that `source` names: a path, a glob, or braces.

    `shard-{000..012}.tar` counts, `{a,b}.csv` lists. A folder that holds one manifest
    (`manifest.*`, `metadata.*` or `pairs.*`) stands for it. Raises `DataError` if there are none.
    """
    with _as_data_error(source):
        return _expand(source)


def _expand(source: str) -> list[Path]:
    if held(source) is not None:
        return [Path(source)]
    if os.path.exists(os.path.expanduser(source)):
        names = [source]
    else:
        names = list(islice(braces(source), _MOST_FILES + 1))
    if len(names) > _MOST_FILES:
        raise DataError(f"'{short(source)}' names more than {_MOST_FILES:,} files")
    paths: list[Path] = []
    for name in names:
        name = os.path.expanduser(name)
        if os.path.exists(name):
            paths.append(_manifest_in(Path(name)))
        elif "://" in name:
            raise _not_here(name)
        elif glob.has_magic(name):
            if len(name) > MAX_PATH:
                raise DataError("the pattern is too long for a path", path=short(name, 300))
            found = sorted(glob.glob(name, recursive=True))
            if not found:
                raise DataError("no file matches this pattern", path=short(name, 300))
            paths += map(Path, found)
        else:
            hint = _near(Path(name))
            raise DataError("there is no such file or folder", hint, path=short(name, 300))
    return paths


def braces(pattern: str) -> Iterator[str]:
    """`pattern` with its braces written out."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        yield pattern
        return
    before, after = pattern[: match.start()], pattern[match.end() :]
    span = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", match[1])
    if span:
        first, last = int(span[1]), int(span[2])
        if abs(last - first) >= _MOST_FILES:
            raise DataError(f"'{short(pattern)}' names more than {_MOST_FILES:,} files")
        step = 1 if last >= first else -1
        parts = [str(n).zfill(len(span[1])) for n in range(first, last + step, step)]
    else:
        parts = match[1].split(",")
    for part in parts:
        yield from braces(before + part + after)


def _manifest_in(path: Path) -> Path:
    if path.is_dir():
        found = [p for p in path.iterdir() if MANIFESTS.fullmatch(p.name)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(p.name for p in found))
            raise DataError(
                f"the folder contains several manifests: {names}", "Name one.", path=path
            )
    return path


def _near(path: Path) -> str:
    folder = path.parent
    hint = ""
    if not folder.is_dir():
        hint = f"The folder {folder} does not exist either."
        if re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)):
            hint += f"\nIf this is a dataset of the Hugging Face hub: {_fetch(str(path))}"
        return hint
    near = difflib.get_close_matches(path.name, os.listdir(folder), n=1)
    return f"Did you mean {folder / near[0]}?" if near else ""


def _fetch(name: str) -> str:
    """How to get a dataset of the hub."""
    return f"hf download --repo-type dataset {name} --local-dir {name.rpartition('/')[2]}"


def _not_here(name: str) -> DataError:
    """The error for an address of another machine, with how to get what is there."""
    kind, _, rest = name.partition("://")
    how = {
        "s3": f"aws s3 sync {short(name, 200)} data",
        "gs": f"gcloud storage rsync -r {short(name, 200)} data",
        "hf": _fetch(short("/".join(rest.removeprefix("datasets/").split("/")[:2]), 200)),
        "http": f"curl -LO {short(name, 200)}",
        "https": f"curl -LO {short(name, 200)}",
    }.get(kind.lower(), "")
    hint = "Fetch the data first, then give the path of the file or folder."
    return DataError(
        "this is an address, but fusemix reads files on this machine",
        f"{hint}\nExample: {how}" if how else hint,
        path=short(name, 300),
    )


def reader_of(path: Path, config: DataConfig) -> tuple[Reader, list[str]]:
    """(the reader of `path`, warnings): the one that `config` names, else the first that matches.

    Readers of the user and of plugins are asked before the built-in ones, general ones last. A
    plugin's reader that can't be loaded is a warning; `DataError` if no reader matches.
    """
    if config.reader is not None:
        spec = registry.check("reader", config.reader)
        return _made(spec, config, path)
    warnings, general = [], []
    for spec in _in_order():
        try:
            spec.check_requirements()
            reader = registry.target_of(spec)()
        except (FusemixError, ImportError) as error:
            warnings.append(f"The reader '{spec.name}' can't be used: {error}")
            continue
        if getattr(reader, "general", False):
            general.append((spec, reader))
        elif reader.matches(path):
            return _made(spec, config, path, warnings)
    for spec, reader in general:
        if reader.matches(path):
            return _made(spec, config, path, warnings)
    formats = "; ".join(spec.summary or spec.name for spec in _in_order())
    what, remedy = what_is(head_of(path)) or ("", "")
    hints = [remedy, f"fusemix reads {formats}. Another: --reader NAME, or ./file.py:Class"]
    raise DataError(
        f"no reader knows this kind of file ('{path.suffix}')"
        + (f": it is {what}" if what else ""),
        "\n".join([hint for hint in hints if hint] + warnings),
        path=path,
    )


def _in_order() -> list[ComponentSpec]:
    """The registered readers, the built-in ones last."""
    found = registry.all_components("reader")
    return [spec for dist, spec in sorted(found, key=lambda one: one[0] == CORE)]


def _made(
    spec: ComponentSpec, config: DataConfig, path: Path, warnings: Sequence[str] = ()
) -> tuple[Reader, list[str]]:
    """The reader with the options that the config gives, and what of it it has no use for."""
    given = {name: getattr(config, name) for name in ("encoding", "delimiter")}
    given = {name: value for name, value in given.items() if value is not None}
    unused = [
        f"{path}: --{name} is not used, as the reader '{spec.name}' has no such option."
        for name in given
        if name not in spec.options
    ]
    options = {name: value for name, value in given.items() if name in spec.options}
    if "allow_outside" in spec.options:
        options["allow_outside"] = config.allow_outside
    if config.reader is not None:
        options |= config.reader.options
    return registry.target_of(spec)(**options), [*warnings, *unused]


def open_source(
    path: Path, config: DataConfig
) -> tuple[Iterator[Row | Rejected | Block], Counter[str], list[str]]:
    """(rows and blocks of them; in how many of the first thousand each column is filled; warnings)
    of a source. Those first ones come as rows.

    Notes of the reader are among the warnings, those on later rows once these are read.
    """
    with _as_data_error(path):
        table = held(path)
        reader, warnings = (HeldReader(table), []) if table else reader_of(path, config)
    rows = _checked(reader, path, warnings)
    head: list[Row | Rejected] = []
    while len(head) < _PEEK and (one := next(rows, None)) is not None:
        if isinstance(one, Block):
            if len(one) > _PEEK - len(head):
                one, rest = one.split(_PEEK - len(head))
                rows = chain([rest], rows)
            head.extend(one.rows())
        else:
            head.append(one)
    filled: Counter[str] = Counter()
    for row in head:
        if isinstance(row, Row):
            filled.update({name: not is_missing(value) for name, value in row.values.items()})
    return chain(head, rows), filled, warnings


def _reading(reader: Reader) -> Callable[[Path], Iterator[Row | Rejected | Note | Block]]:
    """The `blocks` of a reader, or its `rows` if a class changed only these."""
    for cls in type(reader).__mro__:
        if "blocks" in vars(cls):
            return reader.blocks
        if "rows" in vars(cls):
            break
    return reader.rows


def _checked(reader: Reader, path: Path, warnings: list[str]) -> Iterator[Row | Rejected | Block]:
    """What a reader yields, its faults as errors that name the file, its notes as warnings."""
    with _as_data_error(path):
        for row in _reading(reader)(path):
            if isinstance(row, Note):
                warnings.append(row.text)
            elif isinstance(row, Row | Rejected | Block):
                yield row
            else:
                wanted = "Row, Rejected or Note"
                raise ContractError(type(reader).__name__, wanted, type(row).__name__)


@contextmanager
def _as_data_error(path: str | Path) -> Iterator[None]:
    """What the system says of a file as an error that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"can't be read: {why}", path=short(path, 300)) from error
