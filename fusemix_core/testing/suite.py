"""A suite of checks: named functions, run one by one on a case, and made into pytest cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fusemix_core.errors import UnknownNameError
from fusemix_core.testing.report import CheckResult, Report


class CheckFailed(AssertionError):
    """What a check raises: the component does not hold what the check is for."""


def expect(condition: object, detail: str) -> None:
    """Raise `CheckFailed` with `detail` unless `condition` is true."""
    if not condition:
        raise CheckFailed(detail)


@dataclass(frozen=True)
class Check:
    """A check: `run(case)` raises if the component does not hold what `holds` says.

    `applies(case)` is False if there is nothing to look at; such a check is not run.
    """

    name: str
    holds: str
    run: Callable[[Any], None]
    applies: Callable[[Any], bool]

    def result(self, case: Any, expected: str = "") -> CheckResult:
        """Run it; whatever it raises is the detail of a failure."""
        try:
            self.run(case)
        except CheckFailed as failure:
            return CheckResult(self.name, False, str(failure), self.holds, expected)
        except Exception as error:
            detail = f"{type(error).__name__}: {error}".rstrip(": ")
            return CheckResult(self.name, False, detail, self.holds, expected)
        return CheckResult(self.name, True, "", self.holds, expected)


class Suite:
    """All checks of one kind of component, in order.

    `least` is the floor: how many checks must have passed before a run counts as a success.
    """

    def __init__(self, kind: str, least: int) -> None:
        self.kind, self.least = kind, least
        self.checks: dict[str, Check] = {}

    def check(self, *, when: Callable[[Any], bool] = lambda case: True) -> Callable:
        """Decorates a function of a case as a check; its docstring says what the check holds."""

        def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
            holds = (function.__doc__ or "").strip().splitlines()[0].rstrip(".")
            self.checks[function.__name__] = Check(function.__name__, holds, function, when)
            return function

        return add

    def expected(self, expected_failures: Mapping[str, str] | None) -> Mapping[str, str]:
        """`expected_failures`, its names checked; raises `UnknownNameError`, or for no reason."""
        for name, reason in (expected_failures or {}).items():
            if name not in self.checks:
                raise UnknownNameError.of(f"check of {self.kind}s", name, self.checks)
            if not reason:
                raise ValueError(f"expected_failures: give the reason why '{name}' fails")
        return expected_failures or {}

    def run(
        self, subject: str, case: Any, expected_failures: Mapping[str, str] | None = None
    ) -> Report:
        """Run every check that applies to `case`."""
        expected = self.expected(expected_failures)
        chosen = [c for c in self.checks.values() if c.applies(case)]
        results = [c.result(case, expected.get(c.name, "")) for c in chosen]
        return Report(subject, results, self.least)
