"""The kit itself: reports, floors, expected failures, the pytest decorator, what it watches."""

import json
import logging
import os
import random
import sys
import textwrap
import warnings
from pathlib import Path

import pytest
import started
import torch
from kit.broken_encoders import Good, IgnoresView, NeverCuts

from fusemix_core.errors import ConfigError, ContractError, UnknownNameError
from fusemix_core.specs import EncoderSpec
from fusemix_core.testing import check_encoder, check_mixup, encoder_suite, mixup_suite
from fusemix_core.testing.report import CheckResult, Report
from fusemix_core.testing.suite import Suite, expect
from fusemix_core.testing.watch import Watch

HERE = Path(__file__).parent


def suite_of(**checks):
    suite = Suite("thing", least=1)
    for name, function in checks.items():
        function.__name__, function.__doc__ = name, f"What {name} holds."
        suite.check()(function)
    return suite


def fails(case):
    expect(False, "it does not hold")


def passes(case):
    pass


# -- reports ---------------------------------------------------------------------------------------


def test_a_report_counts_what_ran_and_what_failed():
    report = suite_of(good=passes, bad=fails).run("x", None)
    assert (report.ran, report.held, [r.name for r in report.failed]) == (2, 1, ["bad"])
    assert [r.passed for r in report] == [True, False] and report[1].detail == "it does not hold"
    assert report.summary() == "2 checks ran, 1 failed"
    with pytest.raises(AssertionError, match="bad: failed: it does not hold"):
        report.raise_if_failed()
    assert json.loads(json.dumps(report.as_dict()))["failed"] == 1


def test_a_report_on_nothing_is_no_success():
    report = Report("x", [], least=3)
    assert not report.ok
    with pytest.raises(AssertionError, match="only 0 checks passed of at least 3"):
        report.raise_if_failed()


def test_the_floor_can_be_raised():
    report = Report("x", [CheckResult("a", True)], least=1)
    report.raise_if_failed()
    with pytest.raises(AssertionError, match="only 1 checks passed of at least 2"):
        report.raise_if_failed(least=2)


def test_an_expected_failure_is_as_it_should_be_and_a_pass_is_not():
    suite = suite_of(good=passes, bad=fails)
    report = suite.run("x", None, {"bad": "a reason"})
    report.raise_if_failed()
    assert report.summary() == "2 checks ran, 0 failed, 1 as expected"
    report = suite.run("x", None, {"good": "a reason", "bad": "a reason"})
    with pytest.raises(AssertionError, match="good: unexpected pass"):
        report.raise_if_failed()


def test_an_unknown_check_and_a_missing_reason_are_refused():
    with pytest.raises(UnknownNameError, match="no check of mixups named 'rows_per_pear'"):
        check_mixup("none", expected_failures={"rows_per_pear": "a reason"})
    with pytest.raises(ValueError, match="give the reason"):
        check_mixup("none", expected_failures={"shapes": ""})


# -- encoders --------------------------------------------------------------------------------------


def test_a_given_encoder_is_checked_without_loading_it():
    encoder = Good.tiny(Good.spec)
    report = check_encoder(Good.spec, encoder=encoder)
    report.raise_if_failed()
    assert "half_precision" not in {r.name for r in report}


def test_what_is_no_encoder_is_refused():
    with pytest.raises(ConfigError, match="can't be checked as an encoder"):
        check_encoder(3)


class Molecule(Good):
    spec = EncoderSpec(name="m", modality="molecule", target="kit.broken_encoders:Good", dim=8)


def test_another_modality_must_bring_its_own_items():
    with pytest.raises(ContractError, match=r"sample_items.*make up molecule items, got 0"):
        check_encoder(Molecule)
    items = ["C" * n for n in range(1, 9)]
    assert check_encoder(Molecule, items=items).ran >= 20


def test_an_encoder_without_a_miniature_says_so():
    class Bare(Good):
        tiny = classmethod(lambda cls, spec: super().tiny(spec))

    Bare.tiny = classmethod(super(Good, Good).tiny.__func__)
    with pytest.raises(ConfigError, match="has no miniature"):
        check_encoder(Bare, tiny=True)


# -- pytest ----------------------------------------------------------------------------------------


@encoder_suite(Good)
def test_decorated(check):
    check()


@encoder_suite(
    IgnoresView, tiny=True, expected_failures={"unknown_view": "it has but one"}, least=20
)
def test_decorated_with_an_expected_failure(check):
    check()


@encoder_suite(lambda: Good.tiny(Good.spec))
def test_decorated_function(check):
    check()


@mixup_suite("fusemix", options={"alpha": 0.5})
def test_decorated_component(check):
    check()


@pytest.mark.slow
def test_the_decorator_fails_where_it_must(tmp_path):
    """Its cases for one that fails a check, passes an expected failure, and is below the floor."""
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent("""
            from kit.broken_encoders import Good, NeverCuts
            from fusemix_core.testing import encoder_suite

            @encoder_suite(NeverCuts)
            def test_broken(check):
                check()

            @encoder_suite(Good, expected_failures={"finite": "no reason"})
            def test_passes_unexpectedly(check):
                check()

            @encoder_suite(Good, least=99)
            def test_too_few(check):
                check()
        """)
    )
    env = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = started.run(*command, env=env, cwd=tmp_path)
    failed = {line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == {
        "test_it.py::test_broken[truncated]",
        "test_it.py::test_passes_unexpectedly[finite]",
        "test_it.py::test_too_few[enough_checks]",
    }
    assert "will be cut: of a letter" in done.stdout
    assert "checks apply, of 99 at least" in done.stdout
    assert not check_encoder(NeverCuts).ok


def test_the_kit_needs_no_pytest_until_it_decorates():
    code = "import sys, fusemix_core.testing; print('pytest' in sys.modules)"
    assert started.run("-c", code).stdout.strip() == "False"


# -- what it watches -------------------------------------------------------------------------------


def test_a_watch_sees_changes_and_undoes_them(monkeypatch):
    monkeypatch.delenv("FUSEMIX_TEST_VARIABLE", raising=False)
    watch = Watch()
    state, level = torch.get_rng_state(), logging.getLogger().level
    filters, path = list(warnings.filters), list(sys.path)
    with watch("it"):
        torch.rand(1)
        random.random()
        torch.set_default_dtype(torch.float64)
        os.environ["FUSEMIX_TEST_VARIABLE"] = "1"
        sys.path.append("/nowhere")
        logging.getLogger().setLevel(3)
        warnings.simplefilter("ignore")
    assert watch.changes == {
        "random state": ["it changed torch's global generator", "it changed random's generator"],
        "torch settings": ["it changed torch's default dtype from torch.float32 to torch.float64"],
        "environment": [
            "it changed the environment: FUSEMIX_TEST_VARIABLE", "it changed sys.path",
        ],
        "logging": ["it changed the warnings filters", "it changed the logger 'root'"],
    }  # fmt: skip
    assert torch.equal(torch.get_rng_state(), state) and torch.get_default_dtype() == torch.float32
    assert "FUSEMIX_TEST_VARIABLE" not in os.environ and sys.path == path
    assert logging.getLogger().level == level and list(warnings.filters) == filters
