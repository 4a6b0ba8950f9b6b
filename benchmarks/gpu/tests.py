"""The tests marked `cuda`, in a process of their own. A rehearsal runs them on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.gpu.case import Case, Jobs
from benchmarks.harness import Bar, Row

ROOT = Path(__file__).parents[2]


def jobs(case: Case) -> Jobs:
    yield "pytest -m cuda", partial(measured, case)


def measured(case: Case) -> Iterable[Row]:
    report = case.scratch / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"]
    subprocess.run(
        [*command, f"--junitxml={report}", "tests/cuda"],
        cwd=ROOT,
        env=os.environ | {"FUSEMIX_CUDA_TESTS_ON": case.device.type},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    yield passed(report.read_text())


def passed(report: str) -> Row:
    """How many tests passed, of a report in JUnit's form that pytest wrote itself."""
    cases = list(ElementTree.fromstring(report).iter("testcase"))  # noqa: S314  our own file
    failed = {}
    for one in cases:
        for kind in ("failure", "error", "skipped"):
            if (found := one.find(kind)) is not None:
                failed[one.get("name")] = f"{kind}: {found.get('message', '')[:300]}"
    count = len(cases) - len(failed)
    share = count / max(len(cases), 1)
    every = Bar(1.0, at_least=True)
    return Row("tests passed", count, f"of {len(cases)}", "all", share, every, {"failed": failed})
