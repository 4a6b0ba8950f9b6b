"""The kit for pytest: one case a check, and one that holds the floor.

    from fusemix_core.testing import encoder_suite

    @encoder_suite("my-encoder", expected_failures={"half_precision": "the runtime is float32"})
    def test_conforms(check):
        check()

What is checked is found, and loaded, when the first case runs. An expected failure that passes is
an error, as is the name of a check that does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from fusemix_core.testing import aligners, encoders, exporters, fusers, generators, readers, tasks
from fusemix_core.testing.adapters import ADAPTER
from fusemix_core.testing.aligners import ALIGNER
from fusemix_core.testing.components import find
from fusemix_core.testing.corrections import CORRECTION
from fusemix_core.testing.encoders import ENCODER
from fusemix_core.testing.evaluators import EVALUATOR
from fusemix_core.testing.exporters import EXPORTER
from fusemix_core.testing.fusers import FUSER
from fusemix_core.testing.generator_case import GENERATOR
from fusemix_core.testing.indexes import INDEX
from fusemix_core.testing.media import MEDIUM
from fusemix_core.testing.mixups import MIXUP
from fusemix_core.testing.objectives import OBJECTIVE
from fusemix_core.testing.optimisers import OPTIMISER
from fusemix_core.testing.readers import READER
from fusemix_core.testing.rerankers import RERANKER
from fusemix_core.testing.scorers import SCORER
from fusemix_core.testing.selectors import SELECTOR
from fusemix_core.testing.suite import Check, CheckFailed, Suite
from fusemix_core.testing.tasks import TASK

Reasons = Mapping[str, str] | None


def encoder_suite(
    subject: encoders.Subject,
    *,
    expected_failures: Reasons = None,
    least: int | None = None,
    **how: Any,
) -> Any:
    """pytest cases of `check_encoder(subject, **how)`; least: the floor, if not the kit's own."""
    return _cases(ENCODER, lambda: encoders.prepare(subject, **how), expected_failures, least)


def generator_suite(
    subject: generators.Subject,
    *,
    expected_failures: Reasons = None,
    least: int | None = None,
    **how: Any,
) -> Any:
    """pytest cases of `check_generator(subject, **how)`."""
    return _cases(GENERATOR, lambda: generators.prepare(subject, **how), expected_failures, least)


def correction_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_correction(subject, **how)`."""
    return _cases(CORRECTION, lambda: find("correction", subject, **how), expected_failures, least)


def adapter_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_adapter(subject, **how)`."""
    return _cases(ADAPTER, lambda: find("adapter", subject, **how), expected_failures, least)


def mixup_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_mixup(subject, **how)`."""
    return _cases(MIXUP, lambda: find("mixup", subject, **how), expected_failures, least)


def medium_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_medium(subject, **how)`."""
    return _cases(MEDIUM, lambda: find("medium", subject, **how), expected_failures, least)


def reader_suite(
    subject: Any,
    source: Any = None,
    *,
    expected_failures: Reasons = None,
    least: int | None = None,
    **how: Any,
) -> Any:
    """pytest cases of `check_reader(subject, source, **how)`."""
    return _cases(READER, lambda: readers.prepare(subject, source, **how), expected_failures, least)


def objective_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_objective(subject, **how)`."""
    return _cases(OBJECTIVE, lambda: find("objective", subject, **how), expected_failures, least)


def optimiser_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_optimiser(subject, **how)`."""
    return _cases(OPTIMISER, lambda: find("optimiser", subject, **how), expected_failures, least)


def aligner_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_aligner(subject, **how)`."""
    return _cases(ALIGNER, lambda: aligners.prepare(subject, **how), expected_failures, least)


def scorer_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_scorer(subject, **how)`."""
    return _cases(SCORER, lambda: find("scorer", subject, **how), expected_failures, least)


def selector_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_selector(subject, **how)`."""
    return _cases(SELECTOR, lambda: find("selector", subject, **how), expected_failures, least)


def evaluator_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_evaluator(subject, **how)`."""
    return _cases(EVALUATOR, lambda: find("evaluator", subject, **how), expected_failures, least)


def task_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_task(subject, **how)`."""
    return _cases(TASK, lambda: tasks.prepare(subject, **how), expected_failures, least)


def fuser_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_fuser(subject, **how)`."""
    return _cases(FUSER, lambda: fusers.prepare(subject, **how), expected_failures, least)


def reranker_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_reranker(subject, **how)`."""
    return _cases(RERANKER, lambda: find("reranker", subject, **how), expected_failures, least)


def index_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_index(subject, **how)`."""
    return _cases(INDEX, lambda: find("index", subject, **how), expected_failures, least)


def exporter_suite(
    subject: Any, *, expected_failures: Reasons = None, least: int | None = None, **how: Any
) -> Any:
    """pytest cases of `check_exporter(subject, **how)`."""
    return _cases(EXPORTER, lambda: exporters.prepare(subject, **how), expected_failures, least)


def _cases(
    suite: Suite, prepare: Callable[[], Any], expected_failures: Reasons, least: int | None
) -> Any:
    import pytest

    reasons = suite.expected(expected_failures)
    case = cache(prepare)
    cases = []
    for name, check in suite.checks.items():
        marks = [pytest.mark.xfail(reason=reasons[name], strict=True)] if name in reasons else []
        cases.append(pytest.param(partial(_run, check, case), id=name, marks=marks))
    floor = suite.least if least is None else least
    cases.append(
        pytest.param(partial(_hold_floor, suite, case, reasons, floor), id="enough_checks")
    )
    return pytest.mark.parametrize("check", cases)


def _run(check: Check, case: Callable[[], Any]) -> None:
    import pytest

    if not check.applies(case()):
        pytest.skip(f"nothing to check: {check.holds}")
    fault = ""
    try:
        check.run(case())
    except CheckFailed as failure:
        fault = f"{check.holds}: {failure}"
    if fault:
        pytest.fail(fault, pytrace=False)


def _hold_floor(suite: Suite, case: Callable[[], Any], reasons: Mapping[str, str], least: int):
    """So that a suite of which little applies, or most is excused, is not a success."""
    hold = [n for n, c in suite.checks.items() if n not in reasons and c.applies(case())]
    assert len(hold) >= least, f"only {len(hold)} checks apply, of {least} at least"
