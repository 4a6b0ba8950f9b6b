"""A model in use against extraction: the same items, from files to embeddings and to the store."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.extraction import CPU, OPENVINO, TORCH, read_items
from benchmarks.harness import Bar, Options, Row, interleaved, median, ratio
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.data.items import Items
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.extraction import extract
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.latents.store import LatentStore
from fusemix_core.registry import registry
from fusemix_core.scorers.cosine import CosineScorer

TITLE = "A model in use"
ABOUT = """
`FusedModel.encode` of 1,000 figures, and of 1,000 descriptions, against extraction of the same
items, in turn in one process. Both read, decode, resize, tokenise and encode with the starter's
encoders, in the same batches. Then one embeds by a linear adapter, and the other stores. The export
for OpenVINO is made before and not counted. A model keeps the runtime that it found, where each
extraction compiles it anew.
"""

ENCODERS = {"image": "efficientnet-lite0", "text": "minilm"}
DIM = 512
BAR = Bar(0.95, at_least=True)
BACKENDS = {TORCH: "eager", OPENVINO: "openvino"}


@dataclass
class Subject:
    """The items of one modality, the model, and a home for the store and the exports."""

    model: FusedModel
    modality: str
    items: Items
    home: Path

    def extracted(self, runtime: str) -> Any:
        """Extraction into an empty store."""
        shutil.rmtree(self.home / "latents", ignore_errors=True)
        encoder = self.model.encoder(self.modality).load()
        return extract(
            encoder.spec,
            self.items,
            LatentStore(self.home),
            Encoding(CPU, backend=BACKENDS[runtime]),
            encoder=encoder,
        )

    def encoded(self, runtime: str) -> torch.Tensor:
        """The model's embeddings of the items as a user has them: texts, paths."""
        given = [str(reference) for reference in self.items.references]
        return self.model.encode(self.modality, given, backend=BACKENDS[runtime])


def measure(options: Options) -> Iterator[Row]:
    os.environ["FUSEMIX_HOME"] = str(options.scratch)
    count, repeats = (60, 1) if options.quick else (1000, 3)
    items = read_items(None, dict.fromkeys(ENCODERS, count))
    model = untrained()
    for modality, name in ENCODERS.items():
        subject = Subject(model, modality, items[modality], options.scratch)
        for runtime in (TORCH, OPENVINO):
            seconds = interleaved(
                {
                    "extraction": lambda s=subject, r=runtime: s.extracted(r),
                    "encode": lambda s=subject, r=runtime: s.encoded(r),
                },
                repeats,
            )
            yield Row(
                f"{name}, {runtime}",
                len(subject.items) / median(seconds["encode"]),
                "items/s",
                "extraction",
                ratio(seconds, "extraction", "encode"),
                BAR,
            )


def untrained() -> FusedModel:
    """A fused model of the starter's encoders, whose adapters are as they are made."""
    infos = {}
    for modality, name in ENCODERS.items():
        spec = registry.encoder(name)
        infos[modality] = EncoderInfo.of(
            spec,
            modality=modality,
            dim=spec.dim,
            fingerprint=fingerprint(spec, "float32"),
            view="pooled",
        )
    adapters = {m: LinearAdapter(info.dim, DIM) for m, info in infos.items()}
    return FusedModel(adapters, infos, CosineScorer(), device=CPU)
