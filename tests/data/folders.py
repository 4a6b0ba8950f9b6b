"""What the tests of readers share: folders of pictures, and what a dataset read from them holds."""

import io
import tarfile
from pathlib import Path

from fusemix_core.config import DataConfig
from fusemix_core.data import read_pairs

TAKES = {"image": "image", "text": "text"}


def read(source, takes=TAKES, **options):
    """A dataset without drawn splits, whose counts add up."""
    options = {"validation_fraction": 0.0, "test_fraction": 0.0, **options}
    data = read_pairs(DataConfig(source=(str(source),), **options), takes)
    counts = data.counts
    assert counts["seen"] == counts["used"] + counts["repeated"] + counts["rejected"]
    return data


def pairs(data):
    """Each link as (name of the image, text)."""
    image, text = data.items["image"], data.items["text"]
    return [(Path(str(image.describe(i))).name, text.describe(j)) for i, j in data.links.tolist()]


def texts(data):
    return [data.items["text"].describe(j) for j in data.links[:, 1]]


def reasons(data):
    return [one.reason for one in data.rejected]


def said(data):
    return " ".join(data.warnings)


def sizes(data):
    return tuple(len(rows) for rows in data.splits.values())


def put(folder, *names, text=False):
    """Different files of these names, each with its stem as a text beside it if asked for."""
    for name in names:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode())
        if text:
            path.with_suffix(".txt").write_text(f"{path.parent.name} {path.stem}")
    return Path(folder)


def archive(path, members, mode="w"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
