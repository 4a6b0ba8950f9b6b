"""Tests in any order: `pytest --shuffle SEED` shuffles files, and the tests of each file."""

from __future__ import annotations

import random
from itertools import groupby


def pytest_addoption(parser):
    parser.addoption("--shuffle", type=int, metavar="SEED", help="shuffle files, and their tests")


def pytest_collection_modifyitems(config, items):
    seed = config.getoption("shuffle")
    if seed is None:
        return
    draw = random.Random(seed)  # the same in every process
    files = [list(group) for _, group in groupby(items, key=lambda item: item.path)]
    draw.shuffle(files)
    for file in files:
        draw.shuffle(file)
    items[:] = [item for file in files for item in file]


def pytest_report_header(config):
    seed = config.getoption("shuffle")
    return None if seed is None else f"shuffled by seed {seed}"
