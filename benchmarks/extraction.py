"""Encoding from files: the encoder in torch and in OpenVINO, and extraction against both."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Bar, Options, Row, interleaved, median, ratio, with_usual_memory
from fusemix_core.allocator import keep_freed_memory
from fusemix_core.config import DataConfig
from fusemix_core.data.items import Items
from fusemix_core.data.reading import read_pairs
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.backends import AGREEMENT, Work, accelerate, agreement, vectors
from fusemix_core.latents.batches import batch_size_for
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.extraction import extract
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.latents.pipeline import Pipeline
from fusemix_core.latents.store import LatentStore
from fusemix_core.registry import registry

TITLE = "Extraction"
ABOUT = """
The starter's encoders on figures and their descriptions, from files. The bare encoder is `encode`
on batches made before: in torch as torch leaves it (`plain torch`: its memory habits, and for
pictures its usual layout), in torch as fusemix runs it (`torch`), and in OpenVINO. Extraction
reads, decodes, resizes, tokenises, encodes and stores. Where decoding shares the encoder's cores,
it can't be as fast as the bare encoder. The bar is therefore the two done in turn, each on all
cores, which nothing that shares them can beat by much. The export is made once, is not counted, and
has its own line.
"""

CPU = torch.device("cpu")
PLAIN, TORCH, OPENVINO = "plain torch", "torch", "OpenVINO"
FASTER = {"image": None, "text": Bar(1.3, at_least=True)}
WHOLE = Bar(0.95, at_least=True)


@dataclass
class Subject:
    """An encoder and its items, batches of them made before, and the runtime found for it."""

    encoder: Encoder
    items: Items
    home: Path
    batches: list[Any] = field(default_factory=list)
    runtime: Any = None
    export_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.batches = [batch.batch for _, batch in self._batches()]
        self.torch_only()

    def _batches(self) -> Iterator[Any]:
        size = batch_size_for(self.encoder.spec, None, CPU)
        with Pipeline(self.encoder.spec, self.items, self.encoder) as pipeline:
            yield from pipeline.batches(range(len(self.items)), size, 1024)

    def torch_only(self) -> None:
        self.encoder.runtime = None

    def find_runtime(self) -> None:
        """Export, and keep the runtime for `bare`."""
        spec, start = self.encoder.spec, time.perf_counter()
        work = Work("pooled", fingerprint(spec, "float32"), self.home, len(self.items))
        said = accelerate(self.encoder, work, lambda: self.batches[0], "openvino")
        assert not said, said
        self.export_seconds = time.perf_counter() - start
        self.runtime, self.encoder.runtime = self.encoder.runtime, None

    def bare(self, name: str, count: int | None = None) -> list[torch.Tensor]:
        """Latents of the batches (of the first `count`)."""
        self.encoder.runtime = self.runtime if name == OPENVINO else None
        try:
            return [self.encoder.encode(batch) for batch in self.batches[:count]]
        finally:
            self.torch_only()

    def prepare(self) -> None:
        """All batches made again, on all cores, and nothing encoded."""
        for _ in self._batches():
            pass

    def extraction(self, name: str) -> float:
        """Seconds from the first batch to the last shard on disk, into an empty store."""
        shutil.rmtree(self.home / "latents", ignore_errors=True)
        times: list[float] = []
        extract(
            self.encoder.spec,
            self.items,
            LatentStore(self.home),
            Encoding(CPU, backend="eager" if name == TORCH else "openvino"),
            encoder=self.encoder,
            progress=lambda done, total: times.append(time.perf_counter()),
        )
        return times[-1] - times[0]


def measure(options: Options) -> Iterator[Row]:
    keep_freed_memory()
    counts = {"image": 48, "text": 400} if options.quick else {"image": 512, "text": 4000}
    items = read_items(options.data, counts)
    for modality, name in (("image", "efficientnet-lite0"), ("text", "minilm")):
        spec = registry.encoder(name)
        encoder = registry.target_of(spec).load(spec, CPU, torch.float32)
        subject = Subject(encoder, items[modality], options.scratch / modality)
        subject.find_runtime()
        yield from encoder_rows(subject, modality, options.quick)
        yield from extraction_rows(subject, modality, options.quick)


def encoder_rows(subject: Subject, modality: str, quick: bool) -> Iterator[Row]:
    """The bare encoder in each runtime, on the first batches."""
    name, count = subject.encoder.spec.name, 1 if quick else 2
    items = sum(len(part) for part in subject.bare(TORCH, count))
    run = channels_first if modality == "image" else bare_torch
    seconds = interleaved(
        {
            PLAIN: with_usual_memory(run(subject, count)),
            TORCH: lambda: subject.bare(TORCH, count),
            OPENVINO: lambda: subject.bare(OPENVINO, count),
        },
        3 if quick else 7,
    )
    yield Row(f"{name}, {PLAIN}", items / median(seconds[PLAIN]), "items/s")
    for runtime in (TORCH, OPENVINO):
        rate, faster = items / median(seconds[runtime]), ratio(seconds, PLAIN, runtime)
        bar = FASTER[modality] if runtime == OPENVINO else None
        yield Row(f"{name}, {runtime}", rate, "items/s", PLAIN, faster, bar)
    pairs = zip(subject.bare(TORCH), subject.bare(OPENVINO), strict=True)
    least = min(agreement(vectors(a), vectors(b)) for a, b in pairs)
    bar = Bar(AGREEMENT, at_least=True)
    yield Row(f"{name}, least cosine", least, "", f"{TORCH}'s latents", least, bar)
    yield Row(f"{name}, export, once", subject.export_seconds, "s")


def bare_torch(subject: Subject, count: int) -> Callable[[], Any]:
    return lambda: subject.bare(TORCH, count)


def channels_first(subject: Subject, count: int) -> Callable[[], Any]:
    """The picture encoder in torch's usual layout; it computes the same."""
    model = deepcopy(subject.encoder.model).to(memory_format=torch.contiguous_format)
    batches = [batch.contiguous() for batch in subject.batches[:count]]

    @torch.inference_mode()
    def run() -> None:
        for batch in batches:
            model.forward_head(model.forward_features(batch), pre_logits=True)

    return run


def extraction_rows(subject: Subject, modality: str, quick: bool) -> Iterator[Row]:
    """Extraction in each runtime, against the bare encoder and against the work done in turn."""
    name, count = subject.encoder.spec.name, len(subject.items)
    for runtime in (TORCH, OPENVINO):
        inside: list[float] = []

        def whole(runtime: str = runtime, inside: list[float] = inside) -> None:
            inside.append(subject.extraction(runtime))

        forms = {
            "bare": lambda runtime=runtime: subject.bare(runtime),
            "prepare": subject.prepare,
            "whole": whole,
        }
        repeats = 1 if quick else 3
        seconds = interleaved(forms, repeats)
        seconds["whole"] = inside[-repeats:]
        turns = zip(seconds["bare"], seconds["prepare"], strict=True)
        seconds["in turn"] = [a + b for a, b in turns]
        rate = count / median(seconds["whole"])
        what = f"{name}, extraction, {runtime}"
        share = ratio(seconds, "bare", "whole")
        yield Row(what, rate, "items/s", "the bare encoder", share)
        share = ratio(seconds, "in turn", "whole")
        yield Row(what, rate, "items/s", "decode and encode in turn", share, WHOLE)


def read_items(data: Path | None, counts: dict[str, int]) -> dict[str, Items]:
    """Figures and descriptions: of OpenStax' books where they are, else the bundled sample."""
    folder = data / "openstax" if data else None
    if folder and folder.exists():
        source, columns = folder / "manifest.jsonl", {"image": "image", "text": "alt"}
    else:
        from fusemix_starter import sample_path

        source, columns = sample_path(), {"image": "image", "text": "text"}
    config = DataConfig((str(source),), columns=columns)
    dataset = read_pairs(config, {"image": "image", "text": "text"})
    return {m: some(items, counts[m]) for m, items in dataset.items.items()}


def some(items: Items, count: int) -> Items:
    """`count` of the items, drawn by seed, in order."""
    drawn = np.sort(np.random.default_rng(0).permutation(len(items))[:count])
    references = [items.references[i] for i in drawn]
    return Items(
        items.modality, items.takes, references, items.keys[drawn], items.origin.select(drawn)
    )
