"""`check_evaluator`: whether an evaluator keeps its contract."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from fusemix_core.data.facts import Fact
from fusemix_core.data.items import Items, Origin
from fusemix_core.errors import FusemixError
from fusemix_core.evaluation.ranking import cosine
from fusemix_core.evaluation.running import plain_metrics, sections_of
from fusemix_core.interfaces import Evaluator
from fusemix_core.measured import PARTS, Classes, Measured
from fusemix_core.registry import Registry, registry
from fusemix_core.reports.figures import markup
from fusemix_core.scorers.cosine import CosineScorer
from fusemix_core.space import Space
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect

EVALUATOR = Suite("evaluator", least=9)
add_declaration_checks(EVALUATOR)

ROWS, DIM, CLASSES = 40, 8, 4
MODALITIES = ("image", "text", "audio")


def check_evaluator(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check an evaluator: a registered name, a ComponentSpec or a class, built with `options`.

    The kit's data have images, texts and sounds, and the facts `label` (a class) and `value` (a
    number).

    Example:
        check_evaluator("retrieval").raise_if_failed()
    """
    EVALUATOR.expected(expected_failures)
    case = find("evaluator", subject, options, registry)
    return EVALUATOR.run(case.name, case, expected_failures)


@dataclass(frozen=True)
class _Made:
    """A reference to bytes that the kit made up."""

    name: str
    content: bytes

    def read(self) -> bytes:
        return self.content

    def __str__(self) -> str:
        return self.name


def data_for(evaluator: Any, modalities: int = 3, rows: int = ROWS) -> Measured:
    """A split with all that an evaluator declares in `uses`, and nothing else of that kind.

    In each modality some rows lack an item, if there are three of them.
    """
    draw = torch.Generator().manual_seed(0)
    points = torch.randn(rows, DIM, generator=draw)
    names = MODALITIES[:modalities]
    embeddings = {
        m: normalize(points + 0.3 * torch.randn(rows, DIM, generator=draw), dim=1) for m in names
    }
    links = torch.arange(rows)[:, None].repeat(1, len(names))
    if len(names) > 2:
        for column in range(len(names)):
            links[column :: 7 + column, column] = -1
        links[(links >= 0).sum(1) < 2] = torch.arange(rows)[:, None][(links >= 0).sum(1) < 2]
    uses = getattr(evaluator, "uses", ())
    return Measured(
        embeddings=embeddings,
        links=links,
        score=cosine,
        seed=3,
        facts=_facts(rows) if "facts" in uses else {},
        bank={m: e.roll(1, 0) for m, e in embeddings.items()} if "bank" in uses else None,
        classes=_classes(embeddings, rows) if "classes" in uses else None,
        items={m: _items(m, rows) for m in names},
        ids={m: torch.arange(rows) for m in names},
        encoder=_encode,
        prefix=Space(DIM, tuple(names), CosineScorer(), torch.eye(DIM)).prefix,
    )


def _facts(rows: int) -> dict[str, Fact]:
    label = np.arange(rows) % CLASSES
    label[::11] = -1
    names = tuple(f"class {i}" for i in range(CLASSES))
    value = np.linspace(0, 1, rows, dtype=np.float32)
    return {"label": Fact("class", label, names), "value": Fact("number", value)}


def _classes(embeddings: Mapping[str, Tensor], rows: int) -> Classes:
    first, second = list(embeddings)[:2]
    names = [f"class {i}" for i in range(CLASSES)]
    labels = torch.arange(rows) % CLASSES
    return Classes(names, labels, _encode(second, names), first, second)


def _encode(modality: str, items: Any) -> Tensor:
    draw = torch.Generator().manual_seed(len(modality))
    return normalize(torch.randn(len(items), DIM, generator=draw), dim=1)


def _items(modality: str, rows: int) -> Items:
    if modality == "text":
        references: list[Any] = [f"text {i}" for i in range(rows)]
    elif modality == "image":
        out = io.BytesIO()
        Image.new("RGB", (16, 12), "teal").save(out, "PNG")
        references = [_Made(f"{i}.png", out.getvalue()) for i in range(rows)]
    else:
        references = [_Made(f"{i}.wav", b"") for i in range(rows)]
    keys = np.stack([np.arange(rows, dtype=np.uint64)] * 2, axis=1)
    origin = Origin(("kit.csv",), np.zeros(rows, np.int32), np.arange(1, rows + 1))
    return Items(modality, modality, references, keys, origin)


def measure(case: ComponentCase, data: Measured | None = None) -> dict[str, Any]:
    evaluator = case.make()
    found = evaluator(data_for(evaluator) if data is None else data)
    return plain_metrics(case.name, found)


@EVALUATOR.check()
def is_an_evaluator(case: ComponentCase) -> None:
    """It is an Evaluator."""
    made = case.make()
    expect(isinstance(made, Evaluator), f"{type(made).__name__} is not a subclass of Evaluator")


@EVALUATOR.check()
def declared_uses(case: ComponentCase) -> None:
    """Its `uses` are known, the spec has the same, and it reads nothing else of that kind."""
    evaluator = case.make()
    for part in evaluator.uses:
        expect(part in PARTS, f"'{part}' in uses; known are {', '.join(PARTS)}")
    if case.spec is not None:
        own, declared = sorted(getattr(case.target, "uses", ())), sorted(case.spec.uses)
        expect(own == declared, f"the spec says {declared}, the class {own}")
    measure(case)


@EVALUATOR.check()
def plain(case: ComponentCase) -> None:
    """Its metrics are finite numbers, texts, lists and mappings, as JSON can store them."""
    expect(measure(case), "no metrics")


@EVALUATOR.check()
def two_modalities(case: ComponentCase) -> None:
    """It measures pairs of two modalities."""
    expect(measure(case, data_for(case.make(), 2)), "no metrics")


@EVALUATOR.check()
def nothing_to_measure(case: ComponentCase) -> None:
    """Of a split that links nothing it gives metrics, or raises an error that says so."""
    data = data_for(case.make())
    try:
        measure(case, replace(data, links=torch.full_like(data.links, -1)))
    except FusemixError as error:
        expect(error.exit_code == 2, f"it raises {type(error).__name__}: {error.message}")


@EVALUATOR.check()
def added_modalities(case: ComponentCase) -> None:
    """It measures a model that a modality was added to."""
    expect(measure(case, replace(data_for(case.make()), added=("audio",))), "no metrics")


@EVALUATOR.check()
def deterministic(case: ComponentCase) -> None:
    """The same split and seed have the same metrics."""
    first = measure(case)
    expect(measure(case) == first, "other metrics the second time")


@EVALUATOR.check()
def input_unmodified(case: ComponentCase) -> None:
    """Embeddings and links stay as they were."""
    evaluator = case.make()
    given, kept = data_for(evaluator), data_for(evaluator)
    evaluator.sections(plain_metrics(case.name, evaluator(given)), given)
    for modality, rows in kept.embeddings.items():
        same = torch.equal(given.embeddings[modality], rows)
        expect(same, f"it changed the embeddings of {modality}")
    expect(torch.equal(given.links, kept.links), "it changed the links")


@EVALUATOR.check()
def shown(case: ComponentCase) -> None:
    """Its sections are Sections of Tables, Figures and Tiles, and rows fit their headings."""
    evaluator = case.make()
    data = data_for(evaluator)
    metrics = plain_metrics(case.name, evaluator(data))
    kept = plain_metrics(case.name, metrics)
    sections_of(case.name, evaluator, metrics, data)
    expect(metrics == kept, "making sections changed the metrics")


@EVALUATOR.check()
def figures(case: ComponentCase) -> None:
    """Its figures can be drawn, and contain shapes and texts only."""
    evaluator = case.make()
    data = data_for(evaluator)
    metrics = plain_metrics(case.name, evaluator(data))
    for section in evaluator.sections(metrics, data):
        for figure in section.figures:
            markup(figure, "kit")


@EVALUATOR.check()
def surroundings(case: ComponentCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    expect_nothing_changed(lambda: measure(case))
