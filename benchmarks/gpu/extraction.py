"""Extraction from files by large encoders with random weights, against the bare encoder."""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu.case import Case, Jobs
from benchmarks.harness import Bar, Row
from fusemix_core.config import DataConfig
from fusemix_core.data.items import Items
from fusemix_core.interfaces import Encoder
from fusemix_core.latents.batches import batch_size_for
from fusemix_core.latents.encoding import Encoding
from fusemix_core.latents.extraction import extract
from fusemix_core.latents.pipeline import Pipeline
from fusemix_core.latents.store import LatentStore
from fusemix_core.latents.transfer import over
from fusemix_core.registry import registry
from fusemix_core.runs.reading import read_usable

COUNTS = {"image": 2_000, "text": 20_000}
QUICK = {"image": 6, "text": 12}
ENOUGH = Bar(0.95, at_least=True)
DTYPES = ("float16", "float32")
GIANT = {
    "hidden_size": 1536,
    "num_hidden_layers": 40,
    "num_attention_heads": 24,
    "image_size": 518,
    "patch_size": 14,
    "use_swiglu_ffn": True,
}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}


def jobs(case: Case) -> Jobs:
    made = items(case.scratch, QUICK if case.quick else COUNTS)
    for dtype in DTYPES:
        for name, modality, build in (
            ("DINOv2 giant", "image", partial(dino, "dinov2-giant", GIANT)),
            ("DINOv2 base", "image", partial(dino, "dinov2-base", GIANT | BASE)),
            ("BGE large", "text", bge),
        ):
            if dtype == "float32" and name == "DINOv2 base":
                continue
            job = partial(measured, case, name, build, made[modality], dtype)
            yield f"{name}, {dtype}", job


def measured(
    case: Case, name: str, build: Callable[..., Encoder], found: Items, dtype: str
) -> Iterable[Row]:
    """Items per second of the bare encoder, and of extraction with it."""
    encoder = build(case, getattr(torch, dtype))
    bare = bare_rate(case, encoder, found)
    yield Row(f"{name}, {dtype}, the bare encoder", bare, "items/s")
    rate = len(found) / extraction_seconds(case, encoder, found, dtype)
    reference = "the bare encoder"
    bar = ENOUGH if dtype == "float16" else None
    yield Row(f"{name}, {dtype}, extraction", rate, "items/s", reference, rate / bare, bar)


def bare_rate(case: Case, encoder: Encoder, found: Items) -> float:
    """Of batches that are ready, on the device."""
    size = batch_size_for(encoder.spec, None, case.device)
    some = range(min(len(found), 4 * size.items))
    with Pipeline(encoder.spec, found, encoder) as pipeline:
        made = (b.batch for _, b in pipeline.batches(some, size, len(some)))
        batches = [over(batch, lambda x: x.to(case.device)) for batch in made]

    def run() -> None:
        for batch in batches:
            encoder.encode(batch)

    return len(some) / case.timed(run, 2, 1).seconds


def extraction_seconds(case: Case, encoder: Encoder, found: Items, dtype: str) -> float:
    """From the first batch to the last shard on disk, into an empty store."""
    home = Path(tempfile.mkdtemp(dir=case.scratch))
    times: list[float] = []
    try:
        extract(
            encoder.spec,
            found,
            LatentStore(home),
            Encoding(case.device, dtype=dtype, backend="eager"),
            encoder=encoder,
            progress=lambda done, total: times.append(time.perf_counter()),
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return times[-1] - times[0]


# -- encoders -------------------------------------------------------------------------------------


def dino(preset: str, shape: dict[str, Any], case: Case, dtype: torch.dtype) -> Encoder:
    """A DINOv2 of the preset's shape with random weights, made on the device."""
    from fusemix_dinov2.encoder import ARCHITECTURES, DinoEncoder
    from transformers import BitImageProcessorPil

    spec = registry.encoder(preset)
    if case.quick:
        return _placed(DinoEncoder.tiny(spec), case, dtype)
    kind = ARCHITECTURES["dinov2"]
    shape = shape | {"use_swiglu_ffn": preset == "dinov2-giant"}
    with torch.device(case.device):
        torch.manual_seed(0)
        model = kind.model(kind.config(**shape))
    processor = BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return DinoEncoder(spec, model, processor, case.device, dtype)


def bge(case: Case, dtype: torch.dtype) -> Encoder:
    """A BERT of BGE large's shape with random weights, and the starter's tokenizer."""
    from fusemix_sentence_transformers.encoder import SentenceTransformerEncoder

    spec = registry.encoder("bge-large")
    if case.quick:
        return _placed(SentenceTransformerEncoder.tiny(spec), case, dtype)
    from transformers import BertConfig, BertModel

    small = registry.encoder("minilm")
    model = registry.target_of(small).load(small, torch.device("cpu"), torch.float32).model
    with torch.device(case.device):
        torch.manual_seed(0)
        model[0].model = BertModel(BertConfig(**LARGE), add_pooling_layer=False)
    return SentenceTransformerEncoder(spec, model, case.device, dtype)


def _placed(encoder: Encoder, case: Case, dtype: torch.dtype) -> Encoder:
    """A miniature on the device; its fingerprint is that of the preset's weights, as no other
    store than this section's ever sees it."""
    encoder.device, encoder.dtype = case.device, dtype
    encoder.model.to(case.device, dtype)
    encoder.spec = replace(encoder.spec, sha256="0" * 64)
    return encoder


# -- items ----------------------------------------------------------------------------------------


def items(folder: Path, counts: dict[str, int]) -> dict[str, Items]:
    """JPEGs of 400 by 300 pixels, and texts of some 25 words, made up by seed."""
    (folder / "images").mkdir()
    with ThreadPoolExecutor() as pool:
        paths = list(pool.map(partial(_picture, folder / "images"), range(counts["image"])))
    found = {}
    for modality, cells in (("image", paths), ("text", texts(counts["text"]))):
        table = folder / f"{modality}.csv"
        table.write_text("\n".join([modality, *cells]) + "\n")
        config = DataConfig((str(table),), validation_fraction=0.0, test_fraction=0.0)
        found[modality] = read_usable(config, {modality: modality}, least=1).items[modality]
    return found


def _picture(folder: Path, number: int) -> str:
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=90)
    (folder / f"{number}.jpg").write_bytes(content.getvalue())
    return f"images/{number}.jpg"


def texts(count: int) -> Iterator[str]:
    random = np.random.default_rng(0)
    syllables = np.array([a + b for a in "bcdfghklmnprstw" for b in "aeiou"])
    for _ in range(count):
        words = random.choice(syllables, (int(random.integers(8, 40)), 2))
        yield " ".join("".join(word) for word in words)
