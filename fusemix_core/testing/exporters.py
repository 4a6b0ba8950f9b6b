"""`check_exporter`: whether an exporter keeps its contract, with a small model and few items."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fusemix_core.config import DataConfig, Part
from fusemix_core.encoder import Encoder, Network
from fusemix_core.errors import ConfigError
from fusemix_core.exports.base import Exporter, ExportSource, check_source
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import Registry, registry
from fusemix_core.specs import EncoderSpec
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    find,
    seed,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect
from fusemix_core.testing.watch import Watch

EXPORTER = Suite("exporter", least=9)
add_declaration_checks(EXPORTER)

ITEMS = 12
_WIDTHS = {"image": 6, "text": 16}
_DIM, _SPACE = 8, 6
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def check_exporter(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    model: FusedModel | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check an exporter: a registered name, a ComponentSpec or a class, built with `options`.

    Args:
        model: One of `image` and `text` that it can write. None: a small one of the kit's, with
            encoders that have a network, linear adapters and the scorer `csls`.

    Example:
        check_exporter("parquet").raise_if_failed()
    """
    EXPORTER.expected(expected_failures)
    case = prepare(subject, options, model, registry)
    return EXPORTER.run(case.name, case, expected_failures)


@dataclass
class ExporterCase(ComponentCase):
    """An exporter to check, and the model that it is given; None: the kit's."""

    model: FusedModel | None = None

    @cached_property
    def trial(self) -> Trial | Exception:
        """The files of two exports, or the error. Made once, as writing may take a while."""
        try:
            return _tried(self)
        except Exception as error:
            return error


def prepare(
    subject: Subject,
    options: Mapping[str, Any] | None = None,
    model: FusedModel | None = None,
    registry: Registry = registry,
) -> ExporterCase:
    """The case of an exporter."""
    return ExporterCase(**vars(find("exporter", subject, options, registry)), model=model)


# -- a model and data ------------------------------------------------------------------------------


class KitEncoder(Encoder):
    """Means of an image's colours, or counts of a text's letters, through a linear network."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec
        with seed(len(spec.modality)):
            self.map = nn.Linear(_WIDTHS[spec.modality], _DIM).requires_grad_(False)

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> KitEncoder:
        return cls(spec)

    def collate(self, items: Sequence[Any]) -> Tensor:
        if self.spec.modality == "text":
            counts = [
                np.bincount(np.frombuffer(t.encode(), np.uint8) % 16, None, 16) for t in items
            ]
            return torch.tensor(np.array(counts), dtype=torch.float32)
        pixels = [np.asarray(image, np.float32).reshape(-1, 3) / 255 for image in items]
        return torch.tensor(np.array([[*p.mean(axis=0), *p.std(axis=0)] for p in pixels]))

    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        return self.compute(view, rows=batch)

    def network(self, view: str) -> Network:
        return Network(_Rows(self.map).eval())


class _Rows(nn.Module):
    def __init__(self, map: nn.Module) -> None:
        super().__init__()
        self.map = map

    def forward(self, rows: Tensor) -> Tensor:
        return self.map(rows)


def kit_model() -> FusedModel:
    """A model of images and texts that can be exported: linear adapters, and the scorer `csls`."""
    infos, sources = {}, {}
    for modality in _WIDTHS:
        target = f"{__name__}:KitEncoder"
        spec = EncoderSpec(name=f"kit-{modality}", modality=modality, target=target, dim=_DIM)
        digest = KitEncoder(spec).weights_digest
        facts = {"modality": modality, "dim": _DIM, "view": "pooled"}
        print_of = fingerprint(spec, "float32", digest)
        infos[modality] = EncoderInfo.of(spec, fingerprint=print_of, **facts)
        sources[modality] = spec
    with seed(0):
        adapters = {m: registry.build("adapter", Part("linear"), _DIM, _SPACE) for m in infos}
        scorer = registry.build("scorer", Part("csls"))
        scorer.fit({m: nn.functional.normalize(torch.randn(40, _SPACE), dim=1) for m in infos})
    return FusedModel(adapters, infos, scorer, sources=sources, device="cpu")


def write_data(folder: Path) -> DataConfig:
    """Images and texts, some of them without a partner, with a number and a word for each row."""
    draw = np.random.default_rng(0)
    with open(folder / "pairs.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "text", "year", "kind"])
        for i in range(ITEMS):
            pixels = draw.integers(0, 256, (9, 11, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
            image, text = f"{i}.png" * (i % 5 > 0), f"<b>item</b> {i}, “é”" * (i % 7 > 0)
            rows.writerow([image, text, 1990 + i, "map" if i % 2 else ""])
    return DataConfig((str(folder / "pairs.csv"),), missing="ok")


@dataclass
class Written:
    """The lines that an exporter returned, and the bytes of its files by path in `folder`."""

    lines: Sequence[str]
    files: dict[str, bytes]
    folder: Path
    beside: list[str]


@dataclass
class Trial:
    """The files of two exports of the same model, and changes of the model and the process."""

    first: Written
    second: Written
    model: list[str]
    process: list[str]


def _tried(case: ExporterCase) -> Trial:
    with tempfile.TemporaryDirectory(prefix="fusemix-") as path:
        place = Path(path).resolve()
        exporter = case.make()
        data = write_data(place) if "data" in getattr(exporter, "uses", ()) else None
        source = ExportSource(case.model or kit_model(), data)
        with patch.dict(os.environ, {"FUSEMIX_HOME": str(place / "home")}):
            before = _facts(source.model)
            check_source(exporter, case.name, source)
            with Watch()("importing"):  # what libraries do when first imported is not its doing
                first = _written(exporter, source, place / "first/export")
            watch = Watch()
            with watch("writing"):
                second = _written(case.make(), source, place / "second/export")
            now = _facts(source.model)
    changed = [name for name, value in before.items() if not torch.equal(value, now[name])]
    process = [change for kind in watch.changes.values() for change in kind]
    return Trial(first, second, changed, process)


def _written(exporter: Exporter, source: ExportSource, place: Path) -> Written:
    place.mkdir(parents=True)
    lines = exporter.write(source, place)
    files = {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }
    beside = [path.name for path in place.parent.iterdir() if path != place]
    return Written(lines, files, place, beside)


def _facts(model: FusedModel) -> dict[str, Tensor]:
    """All that an exporter must leave as it is, by a name for people."""
    found = {f"the scorer's {name}": value.clone() for name, value in model.scorer.tensors.items()}
    for modality, adapter in model.adapters.items():
        for name, value in adapter.state_dict().items():
            found[f"{name} of the adapter of {modality}"] = value.clone()
        found[f"the mode of the adapter of {modality}"] = torch.tensor(adapter.training)
    found["what it encodes"] = model.encode("text", ["a map", "two dogs", "é"])
    return found


def tried(case: ExporterCase) -> Trial:
    """The trial of an exporter. Raises what the exporter raised."""
    if isinstance(case.trial, Exception):
        raise case.trial
    return case.trial


# -- checks ----------------------------------------------------------------------------------------


@EXPORTER.check()
def is_an_exporter(case: ExporterCase) -> None:
    """It is an Exporter."""
    made = case.make()
    expect(isinstance(made, Exporter), f"{type(made).__name__} is not a subclass of Exporter")


@EXPORTER.check()
def takes_the_model(case: ExporterCase) -> None:
    """It can write the model; one that it can't is refused by `check` with a hint."""
    if isinstance(case.trial, ConfigError) and case.trial.hint:
        expect(False, f"give a `model` that it can write: {case.trial.message}")
    tried(case)


@EXPORTER.check()
def writes_files(case: ExporterCase) -> None:
    """It writes files that aren't empty to the folder that it is given, and nothing beside it."""
    done = tried(case).first
    expect(any(done.files.values()), "it writes no files, or empty ones")
    expect(not done.beside, f"beside the folder it writes {', '.join(done.beside)}")


@EXPORTER.check()
def says_how_to_use_them(case: ExporterCase) -> None:
    """Its lines are texts, name the folder as `{out}`, and name only files that it wrote."""
    done = tried(case).first
    expect(not isinstance(done.lines, str), "it returns one text, not lines")
    expect(done.lines and all(isinstance(one, str) for one in done.lines), "it returns no lines")
    text = "\n".join(done.lines)
    expect("{out}" in text, "no line contains {out}")
    expect(str(done.folder) not in text, "a line names the folder of the time of writing")
    for name in re.findall(r"\{out\}/([\w./-]*\w)", text):
        there = any(path == name or path.startswith(f"{name}/") for path in done.files)
        expect(there, f"a line names {name}, which it didn't write")


@EXPORTER.check()
def can_be_moved(case: ExporterCase) -> None:
    """No file contains the path of the folder, which gets its name when all is written."""
    done = tried(case).first
    for name, content in done.files.items():
        expect(str(done.folder).encode() not in content, f"{name} contains the folder's path")


@EXPORTER.check()
def no_code(case: ExporterCase) -> None:
    """No file is a pickle, or contains one: opening it could run code."""
    for name, content in tried(case).first.files.items():
        pickled = content.startswith(_PICKLES) or (content.startswith(b"PK") and b".pkl" in content)
        expect(not pickled, f"{name} is a pickle")


@EXPORTER.check()
def deterministic(case: ExporterCase) -> None:
    """The same model and data are written as the same files of the same sizes."""
    done = tried(case)
    first, second = ({n: len(c) for n, c in d.files.items()} for d in (done.first, done.second))
    differ = sorted(n for n in first | second if first.get(n) != second.get(n))
    expect(not differ, f"the second time there is another {', '.join(differ)}")


@EXPORTER.check()
def model_unmodified(case: ExporterCase) -> None:
    """The model encodes the same afterwards, and its parts stay as they were."""
    changed = tried(case).model
    expect(not changed, f"it changed {', '.join(changed)}")


@EXPORTER.check()
def surroundings(case: ExporterCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    changed = tried(case).process
    expect(not changed, "; ".join(changed))
