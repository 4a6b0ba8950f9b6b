"""From raw files to a cross-modal search: sentence-transformers' `Router` beside `fusemix align`.

    python -m benchmarks router

Needs fusemix-starter, whose bundled sample it takes, and the extra `bench`: sentence-transformers'
trainer wants `accelerate` and `datasets`.
"""

from __future__ import annotations

import csv
import importlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.harness import Options, Row
from fusemix_core import align
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.evaluation.retrieval import retrieval
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import registry

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TITLE = "Beside sentence-transformers' Router"

ABOUT = """
From the image files and texts of the bundled sample to a model, all in one process: `fusemix align`
with an empty latent store against sentence-transformers' `Router` over the same two frozen encoders
(EfficientNet-Lite0, MiniLM), each with a trained `Dense` head to 512 dimensions, by its own trainer
and its `MultipleNegativesRankingLoss` in both directions: 128 pairs a batch, 1e-3 with 10% warm-up,
8 epochs. It encodes every item in every epoch. The time of `fusemix align` is all of it: encoding
all three splits, fitting, choosing, measuring, the report and saving; that of the Router is loading
and training alone. The same split, and the same code that measures recall on its test part.
"""

ENCODERS = {"image": "efficientnet-lite0", "text": "minilm"}
ROUTER = "sentence-transformers Router"
DIM = 512
BATCH = 128
LEARNING_RATE = 1e-3
EPOCHS = 8
QUICK_PAIRS = 64
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Side:
    """What one of the two took and found: a retrieval result by scorer."""

    seconds: float
    found: Mapping[str, Mapping[str, Any]]


def measure(options: Options) -> Iterator[Row]:
    # Loaded before either is timed, as each would find the other's imports done.
    for module in ("fusemix_starter.image", "fusemix_starter.text", "sentence_transformers"):
        importlib.import_module(module)
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    epochs = 2 if options.quick else EPOCHS
    ours, dataset = by_fusemix(options)
    router = by_router(dataset, options.scratch / "router", epochs)
    pairs = f"{sum(len(rows) for rows in dataset.splits.values()):,} pairs"
    against = f"{ROUTER}, {epochs} epochs"
    yield Row(
        f"{pairs}, from raw files to a model",
        ours.seconds,
        "s",
        f"{against}, {router.seconds:.3g} s",
        ours.seconds / router.seconds,
    )
    theirs = router.found["cosine"]
    for scorer, found in ours.found.items():
        for k in ("r1", "r10"):
            value, reference = mean(found, k), mean(theirs, k)
            yield Row(
                f"{pairs}, test {k.upper().replace('R', 'R@')} by {scorer}",
                value,
                "%",
                f"{against}, by cosine {reference:.3g}%",
                value / reference,
            )


def mean(found: Mapping[str, Any], k: str) -> float:
    directions = found["directions"].values()
    return sum(d[k] for d in directions) / len(directions)


def by_fusemix(options: Options) -> tuple[Side, PairedDataset]:
    """`align` into a latent store of its own, and the dataset that it read."""
    from fusemix_starter import sample_path

    data: dict[str, Any] = {"source": [str(sample_path())], "split_column": "split"}
    if options.quick:
        data = {"source": [str(shortened(sample_path(), options))], "split_column": "split"}
        data["allow_outside"] = True
    before = os.environ.get("FUSEMIX_HOME")
    os.environ["FUSEMIX_HOME"] = str(options.scratch / "home")
    try:
        began = time.perf_counter()
        result = align(ENCODERS, data, device="cpu", out=options.scratch / "run")
        seconds = time.perf_counter() - began
    finally:
        os.environ.pop("FUSEMIX_HOME")
        if before is not None:
            os.environ["FUSEMIX_HOME"] = before
    test, scorer = result.results["test"], result.results["scorer"]["name"]
    found = {"cosine": test["retrieval"].get("cosine", test["retrieval"])}
    found[scorer] = test["retrieval"]
    return Side(seconds, found), result.encoded.dataset


def shortened(source: Path, options: Options) -> Path:
    """A manifest of some rows of another, at whose files it points."""
    with open(source, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    step = len(rows) // QUICK_PAIRS
    kept = options.scratch / "some.csv"
    with open(kept, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ("image", "text", "split"), extrasaction="ignore")
        writer.writeheader()
        for row in rows[::step]:
            writer.writerow({**row, "image": source.parent / row["image"]})
    return kept


def by_router(dataset: PairedDataset, out: Path, epochs: int) -> Side:
    """The Router trained on the training pairs of the dataset, and measured on its test pairs."""
    began = time.perf_counter()
    encoders = {m: load(name) for m, name in ENCODERS.items()}
    torch.manual_seed(0)
    model = router_of(encoders)
    train(model, dataset, out, epochs)
    seconds = time.perf_counter() - began
    embeddings, links = embed_test(model, dataset)
    return Side(seconds, {"cosine": retrieval(embeddings, links, resamples=0)})


def load(name: str) -> Encoder:
    spec = registry.encoder(name)
    return registry.target_of(spec).load(spec, CPU, torch.float32)


def router_of(encoders: Mapping[str, Encoder]) -> SentenceTransformer:
    """Both frozen encoders with a Dense head each, behind one Router."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Router

    text = encoders["text"].native("sentence-transformers", "pooled")
    assert text is not None
    for module in nn.ModuleList(text).modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # frozen: a trainer puts the whole model into training mode
    heads = {
        m: Dense(encoder.spec.dim, DIM, activation_function=nn.Identity())
        for m, encoder in encoders.items()
    }
    routes = {
        "image": [frozen_images(encoders["image"]), heads["image"]],
        "text": [*text, heads["text"]],
    }
    return SentenceTransformer(modules=[Router(routes, default_route="text")], device="cpu")


def frozen_images(encoder: Encoder) -> nn.Module:
    """timm's model as a module of sentence-transformers, which knows none: plain torch, in the
    memory format that it is quickest in. It is no submodule, so that it stays in eval mode."""
    from sentence_transformers.sentence_transformer.modules import InputModule

    class FrozenImages(InputModule):
        modalities = ("image",)

        def preprocess(self, inputs: Sequence[Any], **_: Any) -> dict[str, Tensor]:
            return {"pixel_values": encoder.collate(inputs)}

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            pixels = features["pixel_values"].to(memory_format=torch.channels_last)
            with torch.no_grad():
                maps = encoder.model.forward_features(pixels)
                latents = encoder.model.forward_head(maps, pre_logits=True)
            return {**features, "sentence_embedding": latents}

        def save(self, *_: Any, **__: Any) -> None:
            raise NotImplementedError("It lives for one run.")

    return FrozenImages()


def train(model: SentenceTransformer, dataset: PairedDataset, out: Path, epochs: int) -> None:
    """Its own trainer on the training pairs, images decoded from their files in every epoch."""
    from datasets import Dataset, Image
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    links = dataset.links[dataset.splits["train"]]
    columns = {
        m: [dataset.items[m].describe(i) for i in links[:, k]]
        for k, m in enumerate(dataset.modalities)
    }
    pairs = Dataset.from_dict(columns).cast_column("image", Image())
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(out),
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        warmup_steps=0.1,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        router_mapping={"image": "image", "text": "text"},
    )
    loss = MultipleNegativesRankingLoss(
        model, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    SentenceTransformerTrainer(model, arguments, train_dataset=pairs, loss=loss).train()


def embed_test(
    model: SentenceTransformer, dataset: PairedDataset
) -> tuple[dict[str, Tensor], Tensor]:
    """The unit-norm embeddings of the items that the test pairs link, and these links."""
    links = torch.from_numpy(dataset.links[dataset.splits["test"]])
    embeddings, columns = {}, []
    for k, modality in enumerate(dataset.modalities):
        ids, of = links[:, k].unique(return_inverse=True)
        items = [dataset.items[modality].load(int(i)) for i in ids]
        embeddings[modality] = model.encode(
            items,
            task=modality,
            normalize_embeddings=True,
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        columns.append(of)
    return embeddings, torch.stack(columns, dim=1)
