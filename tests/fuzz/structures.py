"""Inputs that are well formed and wrong: hypothesis' values in the place of right ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def search(check: Callable[..., object], count: int, **given_: st.SearchStrategy[Any]) -> None:
    """Call `check` with `count` draws of its arguments; the same ones every time."""

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(**given_)
    def run(**drawn: Any) -> None:
        check(**drawn)

    run()


WORDS = ("", "train", "0.png", "../0.png", "/etc/passwd", "a\0b", "\ud800", "[]", '["a", "b"]', "[",
         "name", "fusemix", "mlp", "./a.py:A", "nan", "é", "x" * 5000, "file:///a", "all", "text",
         "image", "pooled", "cpu", "cuda:7", "~/x", " ", "{}")  # fmt: skip
NUMBERS = (0, -1, 1, 2, 3, 10**30, -(10**30), 2**63, 0.5, float("nan"), float("inf"), -float("inf"),
           1e308, 5e-324)  # fmt: skip


def anything() -> st.SearchStrategy[Any]:
    """Whatever JSON can hold."""
    leaves = st.one_of(
        st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.text()
    )
    words = st.sampled_from(WORDS)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)
        ),
        max_leaves=6,
    )


@st.composite
def altered(draw: st.DrawFn, value: Any) -> Any:
    """`value` with something in it replaced, left out or added, once or twice."""
    for _ in range(draw(st.integers(1, 2))):
        value = _alter(draw, value)
    return value


def _alter(draw: st.DrawFn, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 9)) == 0:
        return draw(anything())
    place = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    copy = value.copy()
    match draw(st.integers(0, 9)):
        case 0:
            del copy[place]
        case 1 if isinstance(copy, dict):
            copy[draw(st.sampled_from(WORDS))] = draw(anything())
        case _:
            copy[place] = _alter(draw, value[place])
    return copy
