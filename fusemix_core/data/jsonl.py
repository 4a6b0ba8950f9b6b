"""JSON manifests: lines, lists of objects, and Karpathy's split files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.delimited import TOO_LONG, read_line
from fusemix_core.data.rows import Row
from fusemix_core.errors import DataError

MAX_JSON = 256 << 20
"""Bytes. A `.json` is read as a whole, and takes several times its size in memory."""


class JsonLinesReader:
    """`.jsonl` and `.ndjson`: an object a line, in UTF-8."""

    def matches(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() in (".jsonl", ".ndjson")

    def rows(self, path: Path) -> Iterator[Row | Rejected]:
        number = 0
        with open(path, "rb") as file:
            while (line := read_line(file)) != b"":
                if line is None:
                    number += 1
                    yield Rejected(str(path), number, "", TOO_LONG)
                    continue
                if number == 0:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if not line.strip():
                    continue
                number += 1
                values = parse_object(line)
                if isinstance(values, str):
                    yield Rejected(str(path), number, "", values)
                else:
                    yield Row(str(path), number, values)


def parse_object(data: bytes) -> dict[str, Any] | str:
    """The JSON object in UTF-8 `data`, or why there is none."""
    try:
        values = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        return "the row is not UTF-8; save the file as UTF-8"
    except (ValueError, RecursionError) as error:
        return f"the row is not JSON: {error}"
    return values if isinstance(values, dict) else "the row is not a JSON object"


class JsonReader:
    """`.json`: a list of objects, or Karpathy's split files of COCO, Flickr8k and Flickr30k.

    The latter hold `{"images": [{"filename", "filepath", "split", "sentences": [{"raw"}]}]}`; an
    image is looked for in `filepath/filename`, then `filename`, beside the file or in its `images`
    folder. Their split `restval` counts as train, as is the custom.
    """

    def matches(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() == ".json"

    def rows(self, path: Path) -> Iterator[Row | Rejected]:
        if path.stat().st_size > MAX_JSON:
            raise DataError(
                f"the file is larger than {MAX_JSON >> 20} MiB",
                "Write one object a line, as .jsonl: jq -c '.[]' a.json > a.jsonl",
                path=path,
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"the file is not JSON: {error}", path=path) from error
        images = content.get("images") if isinstance(content, dict) else None
        if isinstance(images, list) and any(
            "sentences" in i for i in images if isinstance(i, dict)
        ):
            yield from _karpathy(images, path)
        elif isinstance(content, list):
            yield from _objects(content, path)
        else:
            raise DataError(
                "the file is neither a list of objects nor a split file in Karpathy's form",
                'Write a list, [{"image": …, "text": …}, …], or one object a line as .jsonl.',
                path=path,
            )


def _objects(content: list[Any], path: Path) -> Iterator[Row | Rejected]:
    for number, values in enumerate(content, start=1):
        if isinstance(values, dict):
            yield Row(str(path), number, values)
        else:
            yield Rejected(str(path), number, "", "the entry is not an object")


def _karpathy(images: list[Any], path: Path) -> Iterator[Row | Rejected]:
    for number, image in enumerate(images, start=1):
        try:
            texts = [sentence["raw"] for sentence in image["sentences"]]
            name, folder = image["filename"], image.get("filepath") or ""
            file = _locate(path.parent, folder, name)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            yield Rejected(str(path), number, "", f"the entry lacks {error}")
            continue
        plain = {k: v for k, v in image.items() if isinstance(v, str | int | float) or _numbers(v)}
        values = {**plain, "image": file, "text": texts}
        split = image.get("split")
        yield Row(str(path), number, values, split=None if split is None else str(split))


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) in (int, float) for one in value)


def _locate(root: Path, folder: str, name: str) -> str:
    """The image's path relative to `root`; the first form where no file is there."""
    forms = [Path(folder, name), Path(name), Path("images", folder, name), Path("images", name)]
    return str(next((form for form in forms if os.path.isfile(root / form)), forms[0]))
