"""The kit over all that installed plugins register: each component and each class of encoders that
its plugin's own tests don't put through it."""

import re
from pathlib import Path

import pytest

from fusemix_core import testing
from fusemix_core.errors import MissingDependencyError
from fusemix_core.registry import registry
from fusemix_core.specs import EncoderSpec

FAST = {"epochs": 8, "lr": 1e-2}
OPTIONS = {
    ("adapter", "sharelock"): {"hidden": 32},
    ("objective", "soft-infonce"): {"share": 0.0},
    ("evaluator", "compression"): {"dims": (4,)},
    ("index", "flat"): {"segment": 64},
    ("index", "faiss"): {"segment": 64, "least": 100},
    ("correction", "prior"): {"steps": 3, "hidden": 8},
    ("fuser", "mlp"): {"width": 16, "training": FAST},
    ("fuser", "attention"): {"width": 16, "training": FAST},
    ("reranker", "interaction"): {"width": 16},
    ("reranker", "cross"): {"width": 16, "heads": 2, "depth": 1},
    ("fuser", "grid"): {"width": 8, "training": {"epochs": 6, "lr": 3e-2}},
    ("fuser", "hammer"): {"width": 16, "heads": 2, "depth": 1, "training": FAST},
    ("fuser", "reason"): {"width": 16, "knowledge_width": 8, "heads": 2, "training": FAST},
    ("fuser", "rolling"): {"clip": "text", "width": 16, "heads": 2, "layers": 1, "training": FAST},
    ("fuser", "glance"): {"seen": "text", "moments": 1, "width": 16, "heads": 2, "training": FAST},
    ("fuser", "lego"): {"channels": 4, "latent_width": 8, "heads": 2, "training": FAST},
}
"""Of components that with the default options have nothing to learn, are too large for the kit's
rate or for a test, or have targets that follow the rows and get no gradient; the plugins' own tests
go through the others."""

FAILS = {
    "identity": {"learns": "it has nothing to learn"},
    "openvino": {"deterministic": "OpenVINO numbers the tensors of a process in its files"},
}
NEEDS_MORE = {
    ("evaluator", "generation"),
    ("objective", "arl"),
    ("task", "manipulation"),
    *(("task", name) for name in ("occupy", "segment")),
}
"""Components that can't be made without an option that names another, or without facts, which the
kit has not; tests of their own put them through it."""

PLUGINS = Path(__file__).parents[2] / "plugins"
ALSO = {"fusemix_clap.laion"}
"""Modules of encoders whose plugin checks others."""

CHECKED = (
    *("adapter", "mixup", "objective", "optimiser", "aligner", "scorer", "selector", "evaluator"),
    *("task", "fuser", "reranker", "correction", "index", "exporter"),
)
CALL = re.compile(r'\bcheck_(\w+)\("([^"]+)"(?:, (?:expected_failures|model)=\w+)?\)')
CALLS = {
    (call[1], call[2])
    for path in PLUGINS.glob("*/tests/test_*.py")
    for call in CALL.finditer(path.read_text())
}


def checked_as_it_is(spec):
    """Whether its plugin's tests put it through the kit, with the options that it has by itself."""
    return spec.name not in OPTIONS and (spec.kind, spec.name) in CALLS


SLOW = {
    ("aligner", "gradient"),
    ("exporter", "onnx"),
    ("exporter", "openvino"),
    ("exporter", "web"),
    ("index", "faiss"),
    ("reranker", "cross"),
    *(
        ("fuser", name)
        for name in ("attention", "cross", "dense", "glance", "grid", "hammer", "lego")
    ),
    *(("fuser", name) for name in ("mlp", "products", "reason", "rolling", "stack")),
}
"""Components that take seconds here. Others of each kind are quick; tests/kit/test_suite.py and
test_every_check_can_fail.py put small ones through every check."""


def marked(spec):
    return pytest.param(spec, marks=[pytest.mark.slow] * ((spec.kind, spec.name) in SLOW))


COMPONENTS = [
    marked(spec)
    for kind in CHECKED
    for _, spec in registry.all_components(kind)
    if not checked_as_it_is(spec) and (spec.kind, spec.name) not in NEEDS_MORE
]


@pytest.mark.parametrize("spec", COMPONENTS, ids=lambda s: f"{s.kind}-{s.name}")
def test_component(spec):
    check = getattr(testing, f"check_{spec.kind}")
    report = check(
        spec.name,
        options=OPTIONS.get((spec.kind, spec.name)),
        expected_failures=FAILS.get(spec.name),
    )
    report.raise_if_failed(least=report.ran - len(FAILS.get(spec.name, ())))


@pytest.mark.long
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite2", "minilm"])
def test_packaged_weights(name):
    testing.check_encoder(name, device="cpu").raise_if_failed()


def unchecked_classes():
    """An encoder of each class that its plugin's own tests don't put through the kit."""
    found = {}
    for _, spec in registry.all_encoders():
        if isinstance(spec, EncoderSpec) and not checked_by_its_plugin(spec.target):
            found.setdefault(spec.target, spec)
    return [spec for spec in found.values() if not checked_by_a_page(spec.name)]


def checked_by_a_page(name):
    """Whether the page of the kit checks its miniature: the tests of the docs run it."""
    page = (PLUGINS.parent / "docs/reference/testing.md").read_text()
    calls = (f"fusemix encoders check {name} --tiny\n", f'check_encoder("{name}", tiny=True)\n')
    return any(call in page for call in calls)


def checked_by_its_plugin(target):
    module = target.partition(":")[0]
    tests = PLUGINS / module.partition(".")[0].replace("_", "-") / "tests"
    kit = any("check_encoder(" in path.read_text() for path in tests.glob("test_*.py"))
    return kit and module not in ALSO


@pytest.mark.parametrize("spec", unchecked_classes(), ids=lambda s: s.name)
def test_encoder_miniature(spec):
    try:
        spec.check_requirements()
    except MissingDependencyError as error:
        pytest.skip(error.message)
    if registry.target_of(spec).tiny.__func__ is testing.encoders.Encoder.tiny.__func__:
        pytest.skip("it has no miniature: its weights are a package, checked in its plugin's tests")
    testing.check_encoder(spec, tiny=True).raise_if_failed()
