"""Files that claim too much are refused or read in little memory, and soon: see `heavy`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# name → (most megabytes, most seconds, what is said)
QUICK = {
    "document_of_a_gigabyte": (50, 10, "larger than 256 MiB"),
    "nested_json": (300, 20, "1 pairs; row 2: the row is not JSON"),
    "nested_toml": (50, 10, "can't be read as TOML"),
    "endless_config": (50, 10, "larger than 4 MiB"),
    "classes_of_a_gigabyte": (100, 10, "larger than 16 MiB"),
    "captions_of_a_gigabyte": (50, 10, "1.txt is larger than 16 MiB"),
    "picture_png": (50, 10, "too large"),
    "picture_webp": (50, 10, "too large"),
    "picture_tiff": (50, 10, "too large"),
    "picture_gif": (50, 10, "too large"),
    "picture_bmp": (50, 10, "too large"),
    "picture_ppm": (50, 10, "too large"),
    "picture_of_many_frames": (50, 10, "(500, 500)"),
    "picture_of_three_gigabytes": (50, 10, "larger than 2 GiB"),
    "sound_that_claims_100_hours": (100, 10, "read"),
    "sound_of_100_hours": (100, 10, "more than 172,800,000 samples"),
    "sound_at_a_rate_that_explodes": (100, 10, "more than 172,800,000 samples"),
    "archive_with_a_text_of_a_gigabyte": (50, 10, "2 pairs; row 2"),
    "archive_with_a_picture_of_three_gigabytes": (50, 10, "larger than 2 GiB"),
    "shard_that_claims_a_terabyte": (50, 10, "truncated"),
}
SLOW = {
    "line_of_a_gigabyte_csv": (300, 60, "2 pairs; row 2: the line is longer"),
    "archive_with_a_name_of_a_gigabyte": (50, 60, "2 pairs; row 2: the archive is damaged"),
}
LONG = {
    "line_of_a_gigabyte_tsv": (300, 60, "2 pairs; row 2: the line is longer"),
    "line_of_a_gigabyte_jsonl": (300, 60, "2 pairs; row 2: the line is longer"),
    "nulls": (300, 60, "header is longer"),
    "picture_png_text": (400, 60, "too large for"),
    "largest_picture": (1600, 100, "(13370, 13370) of 678 kB"),
    "sound_of_many_channels": (200, 100, "524288"),
    "sound_of_an_hour": (1600, 100, "3600 s"),
    "parquet_bomb": (800, 100, "2000 rows, 50,000,000 bytes"),
    "parquet_of_nulls": (200, 100, "unpacks to 572 MiB, the limit is 64 MiB"),
}


def found(names, folder):
    """name → what `heavy` found of it."""
    env = {**os.environ, "FUSEMIX_HOME": str(folder / "home"), "PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(
        [sys.executable, HERE / "heavy.py", folder, *names], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def check(line, megabytes, seconds, said):
    assert said in line["said"] and line["said"].startswith(("read", "refused")), line
    assert line["megabytes"] <= megabytes and line["seconds"] <= seconds, line


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return found(QUICK, tmp_path_factory.mktemp("quick"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is a process of its own")
@pytest.mark.parametrize("name", QUICK)
def test_what_is_claimed_is_not_taken(quick, name):
    check(quick[name], *QUICK[name])


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
        *(pytest.param(name, marks=pytest.mark.long) for name in LONG),
    ],
)
def test_what_is_there_is_bounded(name, tmp_path):
    check(found([name], tmp_path)[name], *{**SLOW, **LONG}[name])
