"""For every check of the kit a deliberately broken component fails it, and a good one does not."""

import pytest
from field import Field
from kit.broken_corrections import BROKEN
from kit.broken_encoders import BROKEN as BROKEN_ENCODERS
from kit.broken_encoders import Fitted, Good
from kit.broken_evaluators import Spread
from kit.broken_fusers import Ridge, TokenRidge
from kit.broken_generators import BROKEN as BROKEN_GENERATORS
from kit.broken_indexes import About, Flat
from kit.broken_readers import Lines
from kit.broken_rerankers import Means
from kit.broken_tasks import Scale
from toys import ToyText

from fusemix_core.registry import registry
from fusemix_core.testing import (
    aligners,
    check_encoder,
    check_evaluator,
    check_exporter,
    check_fuser,
    check_generator,
    check_index,
    check_reader,
    check_reranker,
    check_task,
    encoders,
    exporters,
    fusers,
    generators,
    readers,
)
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
from fusemix_core.testing.tasks import TASK
from fusemix_core.testing.watch import Watch

COMPONENTS = {
    "adapter": ADAPTER, "mixup": MIXUP, "objective": OBJECTIVE, "optimiser": OPTIMISER,
    "aligner": ALIGNER, "scorer": SCORER, "selector": SELECTOR,
    "evaluator": EVALUATOR, "reader": READER, "medium": MEDIUM, "task": TASK, "fuser": FUSER,
    "index": INDEX, "exporter": EXPORTER, "reranker": RERANKER,
    "correction": CORRECTION,
}  # fmt: skip
FITTED_ONLY = ("fit_is_plain", "fit_is_kept", "fit_to_few")
"""The checks that only a fitted encoder goes through."""


@pytest.fixture(autouse=True)
def untouched():
    """What a broken component does to the process is undone."""
    with Watch()("the test"):
        yield


@pytest.fixture
def heavy_plugin(tmp_path, monkeypatch):
    """The module of a plugin whose listing imports librosa (one that does nothing)."""
    (tmp_path / "librosa.py").touch()
    (tmp_path / "a_heavy_plugin.py").write_text("import librosa")
    monkeypatch.syspath_prepend(tmp_path)
    return "a_heavy_plugin"


def table(broken):
    return [pytest.param(n, t, id=f"{n}-{_name(t)}") for n, ts in broken.items() for t in ts]


def _name(target):
    return getattr(target, "__name__", None) or target.name


def test_a_good_encoder_passes():
    report = check_encoder(Good)
    report.raise_if_failed()
    fits = len(FITTED_ONLY)
    assert report.ran == len(ENCODER.checks) - fits - 2  # it belongs to no plugin, has no network


@pytest.mark.slow
def test_a_good_fitted_encoder_passes():
    report = check_encoder(Fitted)
    report.raise_if_failed()
    assert set(FITTED_ONLY) <= {result.name for result in report.results}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), table(BROKEN_ENCODERS))
def test_a_broken_encoder_fails_its_check(name, target, heavy_plugin):
    case = encoders.prepare(target, device="cpu")
    if name == "light_import":
        case.plugin = heavy_plugin
    check = ENCODER.checks[name]
    assert check.applies(case)
    result = check.result(case)
    assert not result.passed and result.detail


@pytest.fixture
def space(own_registry):
    """The encoder whose latents condition the toy generator."""
    registry.add(ToyText)


def test_a_good_generator_passes(space):
    report = check_generator(Field)
    report.raise_if_failed()
    assert report.ran == len(GENERATOR.checks) - 1  # it belongs to no plugin


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target"), table(BROKEN_GENERATORS))
def test_a_broken_generator_fails_its_check(name, target, heavy_plugin, space):
    case = generators.prepare(target)
    if name == "light_import":
        case.plugin = heavy_plugin
    check = GENERATOR.checks[name]
    assert check.applies(case)
    result = check.result(case)
    assert not result.passed and result.detail


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [(k, *p.values) for k, broken in BROKEN.items() for p in table(broken)],
    ids=lambda value: value if isinstance(value, str) else _name(value),
)
def test_a_broken_component_fails_its_check(kind, name, target, heavy_plugin):
    prepare = {
        "aligner": aligners.prepare,
        "reader": readers.prepare,
        "fuser": fusers.prepare,
        "exporter": exporters.prepare,
    }
    case = prepare[kind](target) if kind in prepare else find(kind, target)
    if name == "light_import":
        case.plugin = heavy_plugin
    check = COMPONENTS[kind].checks[name]
    assert check.applies(case)
    result = check.result(case)
    assert not result.passed and result.detail


def test_a_good_evaluator_passes():
    report = check_evaluator(Spread)
    report.raise_if_failed()
    assert f"{report.ran} checks ran, 0 failed" in str(report)


def test_a_good_reader_passes():
    check_reader(Lines).raise_if_failed()


def test_a_good_task_passes():
    check_task(Scale).raise_if_failed()


@pytest.mark.parametrize("target", [Ridge, TokenRidge])
def test_a_good_fuser_passes(target):
    check_fuser(target).raise_if_failed()


def test_a_good_reranker_passes():
    check_reranker(Means).raise_if_failed()


@pytest.mark.slow
def test_a_good_index_and_a_good_exporter_pass():
    check_index(Flat).raise_if_failed()
    check_exporter(About).raise_if_failed()


def test_every_check_has_something_that_fails_it():
    assert set(BROKEN_ENCODERS) == set(ENCODER.checks)
    assert set(BROKEN_GENERATORS) == set(GENERATOR.checks)
    assert {k: set(b) for k, b in BROKEN.items()} == {
        k: set(s.checks) for k, s in COMPONENTS.items()
    }


@pytest.mark.parametrize("suite", [ENCODER, GENERATOR, *COMPONENTS.values()], ids=lambda s: s.kind)
def test_every_check_says_what_it_holds_and_the_floor_can_be_reached(suite):
    for check in suite.checks.values():
        assert len(check.holds) > 10, check.name
    most = len(suite.checks) - (len(FITTED_ONLY) if suite is ENCODER else 0)
    assert most - 6 <= suite.least <= most - 2, suite.kind


def test_the_tables_break_one_thing_each():
    """A broken one fails for the reason that it is meant to: nearly all other checks hold."""
    for target in (t for ts in BROKEN["mixup"].values() for t in ts if isinstance(t, type)):
        case = find("mixup", target)
        failed = [c.name for c in MIXUP.checks.values() if c.applies(case)
                  and not c.result(case).passed]  # fmt: skip
        assert len(failed) <= 4, (target, failed)
