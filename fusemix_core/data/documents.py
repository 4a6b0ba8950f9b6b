"""The rows of a JSON document: lists, COCO's and Karpathy's files, columns, mappings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from fusemix_core.data.dataset import Rejected
from fusemix_core.data.dialect import is_media_name
from fusemix_core.data.rows import Note, Row
from fusemix_core.errors import DataError, short

_ID = str | int | float
_OF_COCO = re.compile(r"\w*captions_(\w+)\.json", re.IGNORECASE)


def document_rows(content: Any, path: Path) -> Iterator[Row | Rejected | Note]:
    """The rows that the document of a `.json` contains.

    - a list of objects, or an object with one list of objects: an object is a row;
    - `{"images": [{"filename", "filepath", "split", "sentences": [{"raw"}]}]}`: Karpathy's split
      files of COCO, Flickr8k and Flickr30k; their split `restval` counts as train by custom;
    - `{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`: COCO's;
    - `{"image": […], "text": […]}`, or objects in place of the lists: columns;
    - `{"a.jpg": "a caption", …}`: columns `image` and `text`.

    Raises:
        DataError: the document has another form.
    """
    if isinstance(content, list):
        yield from _objects(content, path)
        return
    if isinstance(content, dict):
        images, annotations = content.get("images"), content.get("annotations")
        if _holds(images, "sentences"):
            yield from _karpathy(images, path)
            return
        if isinstance(images, list) and isinstance(annotations, list):
            yield from _coco(images, annotations, path)
            return
        rows = _columns(content) or _mapping(content) or _only_list(content)
        if rows:
            yield from _objects(rows, path)
            return
    keys = ", ".join(map(short, list(content)[:10])) if isinstance(content, dict) else ""
    raise DataError(
        "the file is neither a list of objects nor COCO's or Karpathy's captions"
        + (f"; it has the keys {keys}" if keys else ""),
        'Write a list, [{"image": …, "text": …}, …], or one object per line as .jsonl.',
        path=path,
    )


def _holds(entries: Any, key: str) -> TypeGuard[list[Any]]:
    return isinstance(entries, list) and any(key in e for e in entries if isinstance(e, dict))


def _objects(content: list[Any], path: Path) -> Iterator[Row | Rejected]:
    for number, values in enumerate(content, start=1):
        if isinstance(values, dict):
            yield Row(str(path), number, values)
        else:
            yield Rejected(str(path), number, "", "the entry is not an object")


def _columns(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of columns that are lists of one length, or mappings with the same keys."""
    columns = list(content.values())
    if len(columns) < 2:
        return []
    if all(isinstance(c, list) for c in columns):
        if len({len(c) for c in columns}) != 1 or any(isinstance(c, dict) for c in columns[0]):
            return []
    elif all(isinstance(c, dict) for c in columns):
        if any(c.keys() != columns[0].keys() for c in columns):
            return []
        columns = [[c[key] for key in columns[0]] for c in columns]
    else:
        return []
    return [dict(zip(content, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _mapping(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    if not content or not all(map(is_media_name, content)):
        return []
    return [
        {"image": name, **value} if isinstance(value, dict) else {"image": name, "text": value}
        for name, value in content.items()
    ]


def _only_list(content: Mapping[str, Any]) -> list[Any]:
    lists = [v for v in content.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    return lists[0] if len(lists) == 1 else []


# -- Karpathy --------------------------------------------------------------------------------------


def _karpathy(images: list[Any], path: Path) -> Iterator[Row | Rejected]:
    """An image is looked for in `filepath/filename`, then `filename`, beside the file or in its
    `images` folder."""
    for number, image in enumerate(images, start=1):
        try:
            texts = [sentence["raw"] for sentence in image["sentences"]]
            name, folder = image["filename"], image.get("filepath") or ""
            file = _locate(path.parent, folder, name)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            yield Rejected(str(path), number, "", f"the entry lacks {error}")
            continue
        values = {**_plain(image), "image": file, "text": texts}
        split = image.get("split")
        yield Row(str(path), number, values, split=None if split is None else str(split))


def _plain(image: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a column may have: texts, numbers, and lists of numbers such as boxes."""
    return {k: v for k, v in image.items() if isinstance(v, str | int | float) or _numbers(v)}


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) in (int, float) for one in value)


def _locate(root: Path, folder: str, name: str) -> str:
    """The image's path relative to `root`; the first form where no file is there."""
    forms = [Path(folder, name), Path(name), Path("images", folder, name), Path("images", name)]
    return str(next((form for form in forms if os.path.isfile(root / form)), forms[0]))


# -- COCO ------------------------------------------------------------------------------------------


def _coco(images: list[Any], annotations: list[Any], path: Path) -> Iterator[Row | Rejected | Note]:
    """A row is an image with all of its captions; annotations without an image follow."""
    if annotations and not _holds(annotations, "caption"):
        raise DataError(
            "the annotations of this COCO file hold no captions",
            "COCO's captions are in the files captions_….json",
            path=path,
        )
    captions: dict[Any, list[str]] = {}
    lost = []
    known = {i["id"] for i in images if isinstance(i, dict) and isinstance(i.get("id"), _ID)}
    for annotation in annotations:
        one = annotation if isinstance(annotation, dict) else {}
        of, caption = one.get("image_id"), one.get("caption")
        has_image = isinstance(of, _ID) and of in known
        if has_image and isinstance(caption, str):
            captions.setdefault(of, []).append(caption)
        else:
            lost.append(f"the caption has no {'text' if has_image else 'image'}")
    root, folder = _coco_folder(images, path)
    if folder or root != path.parent:
        yield Note(f"{path}: the images are read from {root / folder}.")
    for number, image in enumerate(images, start=1):
        name = image.get("file_name") if isinstance(image, dict) else None
        if not isinstance(name, str) or not isinstance(image.get("id"), _ID):
            yield Rejected(str(path), number, "", "the entry lacks 'id' or 'file_name'")
            continue
        values = {
            **_plain(image),
            "image": os.path.join(folder, name),
            "text": captions.get(image["id"]),
        }
        yield Row(str(path), number, values, base=str(root), name=name)
    for number, reason in enumerate(lost, start=len(images) + 1):
        yield Rejected(str(path), number, "", reason)


def _coco_folder(images: list[Any], path: Path) -> tuple[Path, str]:
    """(the folder of the data, the folder of the images in it) of COCO's captions.

    As COCO is unpacked, `annotations/captions_val2017.json` is beside `val2017/`.
    """
    match = _OF_COCO.fullmatch(path.name)
    part = match[1] if match else ""
    places = [(path.parent, folder) for folder in ("", "images", part)]
    if path.parent.name.lower() == "annotations":
        up = path.absolute().parent.parent
        places += [(up, folder) for folder in (part, os.path.join("images", part), "images", "")]
    names = [
        image["file_name"]
        for image in images[:20]
        if isinstance(image, dict) and isinstance(image.get("file_name"), str)
    ]
    for root, folder in places:
        if any(_is_file(root / folder, name) for name in names):
            return root, folder
    return path.parent, ""


def _is_file(folder: Path, name: str) -> bool:
    try:
        return os.path.isfile(folder / name)
    except (OSError, ValueError):
        return False
