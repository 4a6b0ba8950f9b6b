"""What a run of the conformance kit gives: one result a check, and a verdict on all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PASSED, FAILED, EXPECTED, UNEXPECTED = "passed", "failed", "expected failure", "unexpected pass"


@dataclass(frozen=True)
class CheckResult:
    """One check: its name, whether it held, what went wrong, and what the check is for.

    `expected` is the reason given in `expected_failures` for why it should not hold.
    """

    name: str
    passed: bool
    detail: str = ""
    holds: str = ""
    expected: str = ""

    @property
    def status(self) -> str:
        """`passed`, `failed`, `expected failure` or `unexpected pass`."""
        if self.expected:
            return UNEXPECTED if self.passed else EXPECTED
        return PASSED if self.passed else FAILED

    @property
    def ok(self) -> bool:
        """Whether this is as it should be: passed, or failed as expected."""
        return self.status in (PASSED, EXPECTED)


class Report(Sequence[CheckResult]):
    """The results of all checks of one component, in the order in which they ran.

    `least` is the floor: with fewer checks passed, the run says too little to be called a success.
    """

    def __init__(self, subject: str, results: Sequence[CheckResult], least: int) -> None:
        self.subject, self.results, self.least = subject, tuple(results), least

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[CheckResult]:
        return iter(self.results)

    @property
    def ran(self) -> int:
        """How many checks ran."""
        return len(self.results)

    @property
    def held(self) -> int:
        """How many checks passed."""
        return sum(r.passed for r in self.results)

    @property
    def failed(self) -> list[CheckResult]:
        """The results that are not as they should be."""
        return [r for r in self.results if not r.ok]

    @property
    def ok(self) -> bool:
        """Whether nothing failed and the floor was reached."""
        return not self.failed and self.held >= self.least

    def raise_if_failed(self, least: int | None = None) -> None:
        """Raise AssertionError, a line a fault, unless all is well; `least` is another floor."""
        floor = self.least if least is None else least
        lines = [f"{r.name}: {r.status}: {r.detail or r.holds}" for r in self.failed]
        if self.held < floor:
            lines.append(f"only {self.held} checks passed of at least {floor}")
        if lines:
            raise AssertionError(f"{self.subject}: {self.summary()}\n" + "\n".join(lines))

    def __str__(self) -> str:
        """The summary, then one line per check."""
        lines = [f"  {r.status:<18} {r.name}: {r.detail or r.holds}" for r in self.results]
        return "\n".join([f"{self.subject}: {self.summary()}", *lines])

    def __repr__(self) -> str:
        return f"<Report of {self.subject}: {self.summary()}>"

    def summary(self) -> str:
        """One line: how many checks ran, failed, and were expected to fail."""
        expected = sum(r.status == EXPECTED for r in self.results)
        text = f"{self.ran} checks ran, {len(self.failed)} failed"
        return f"{text}, {expected} as expected" if expected else text

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "subject": self.subject,
            "ok": self.ok,
            "ran": self.ran,
            "least": self.least,
            "failed": len(self.failed),
            "checks": [{**asdict(r), "status": r.status} for r in self.results],
        }
