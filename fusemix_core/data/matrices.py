"""Latents that exist already: a matrix in a file, and the ids of its rows.

`.npy`, `.npz`, `.safetensors` and Parquet. Ids are, in this order: the lines of `NAME.ids.txt`
beside the file, an array or column named `ids` or `id` in it, or the numbers of the rows, from 0.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fusemix_core.data.headers import ID, IDS, LATENTS, is_shape
from fusemix_core.data.rows import Reader, Row
from fusemix_core.errors import DataError

SUFFIXES = (".npy", ".npz", ".safetensors")
PARQUET = (".parquet", ".pq")


def read_matrix(path: Path, array: str = "") -> np.ndarray:
    """The latents in a file: `[n, d]`, tokens `[n, T, d]` or grids `[n, H, W, d]`.

    `.npy` is mapped, not read. Nothing is unpickled.

    Args:
        path: The file.
        array: Which array or column, if there are several that could be it.

    Raises:
        DataError: The file can't be read, or contains no such matrix.
    """
    arrays = _arrays(path)
    names = [array] if array else [name for name in arrays if name not in IDS]
    if array and array not in arrays:
        raise DataError(
            f"has no array '{array}'", f"It has: {', '.join(arrays) or 'none'}.", path=path
        )
    if len(names) != 1:
        raise DataError(
            f"contains {len(names)} arrays: {', '.join(names)}" if names else "contains no array",
            f"Name one of them: npy:{path}#{names[0] if names else 'NAME'}",
            path=path,
        )
    matrix = arrays[names[0]]
    if not is_latents(matrix):
        raise DataError(
            f"contains an array of {matrix.dtype} of shape {matrix.shape}", LATENTS, path=path
        )
    return matrix


def is_latents(array: np.ndarray) -> bool:
    """Whether an array can be the latents of one item or more."""
    return is_shape(array.shape) and array.dtype.kind in "fiu"


def read_ids(path: Path, rows: int | None = None) -> list[str]:
    """The ids of the rows, all different.

    Args:
        path: The file of the matrix.
        rows: How many rows the matrix has; None reads that from the file.

    Raises:
        DataError: There are more or fewer ids than rows, or two are the same.
    """
    beside = path.with_name(f"{path.stem}.ids.txt")
    if beside.exists():
        source, found = beside, beside.read_text(encoding="utf-8").splitlines()
        found = [line.strip() for line in found]
    else:
        arrays = {} if path.suffix.lower() == ".npy" and rows is not None else _arrays(path)
        named = next((arrays[name] for name in IDS if name in arrays), None)
        if named is None:
            return [str(i) for i in range(_count(path, arrays) if rows is None else rows)]
        source, found = path, [str(one).strip() for one in named.tolist()]
    rows = len(found) if rows is None else rows
    if len(found) != rows:
        raise DataError(f"has {len(found):,} ids for {rows:,} rows", path=source)
    if len(set(found)) != len(found):
        double, _ = Counter(found).most_common(1)[0]
        raise DataError(f"has the id '{double}' twice", "Give each row its own.", path=source)
    return found


def _count(path: Path, arrays: Mapping[str, np.ndarray]) -> int:
    """The rows of a file's matrices, which must have as many each."""
    counts = {name: len(x) for name, x in arrays.items() if x.ndim}
    if len(set(counts.values())) != 1:
        raise DataError(
            f"contains arrays of different lengths, or none: {counts}",
            "Write a file for each, and say which rows are pairs: --data pairs.csv",
            path=path,
        )
    return next(iter(counts.values()))


def _arrays(path: Path) -> Mapping[str, np.ndarray]:
    """Name → array of a file."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return {path.stem: np.load(path, mmap_mode="r", allow_pickle=False)}
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        if suffix == ".safetensors":
            return _tensors(path)
        return _columns(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError):
            raise DataError("does not exist", path=path) from error
        raise DataError(f"can't be read: {error}", path=path) from error


def _tensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(error) from error
    # numpy has no bfloat16
    return {n: (x.float() if x.is_floating_point() else x).numpy() for n, x in tensors.items()}


def _columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of lists as matrices, and the ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    found: dict[str, np.ndarray] = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if name in IDS:
            found[name] = np.array(column.cast(pa.string()).to_pylist(), object)
        elif pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            values = column.flatten().to_numpy(zero_copy_only=False)
            if not len(column) or column.null_count or len(values) % len(column):
                raise ValueError(f"rows of the column '{name}' differ in length")
            found[name] = values.reshape(len(column), -1)
    return found


class MatrixReader(Reader):
    """`.npy`, `.npz` and `.safetensors`: a row for each id, in the column `id`."""

    def matches(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() in SUFFIXES

    def rows(self, path: Path) -> Iterator[Row]:
        for number, one in enumerate(read_ids(path), start=1):
            yield Row(str(path), number, {ID: one})

    @classmethod
    def sample(cls, folder: Path) -> Path:
        path = folder / "latents.npy"
        np.save(path, np.eye(12, 4, dtype=np.float32))
        return path
