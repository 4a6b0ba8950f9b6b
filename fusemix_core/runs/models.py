"""A fused model at work on a dataset: its items encoded by way of the latent store, and embedded.

What any run has encoded is not encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fusemix_core.data.dataset import PairedDataset
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import PairedLatents, takes_tokens
from fusemix_core.runs.embeddings import SplitEmbeddings, embed_split
from fusemix_core.runs.encode import Encoded, Encoding, encode_dataset
from fusemix_core.runs.reporter import Reporter
from fusemix_core.saved.encoders import Source
from fusemix_core.saved.model import SavedModel


def load_model(
    path: str | Path, device: str = "auto", encoders: Mapping[str, Source] | None = None
) -> FusedModel:
    """The fused model in a model folder or a run folder, or of a hub id."""
    return FusedModel.from_pretrained(model_of(path), device=device, encoders=encoders)


def model_of(path: str | Path) -> str | Path:
    """The model's folder in a run's folder; else the path as it is."""
    inside = Path(path) / "model"
    return inside if (inside / "config.json").exists() else path


def encode_for(
    model: SavedModel,
    dataset: PairedDataset,
    reporter: Reporter,
    max_bad: float,
    store: str | None = None,
) -> Encoded:
    """The latents of a dataset by the model's own encoders, refused if these have changed. `store`
    is the address of the object store, as in `RunConfig`."""
    lazy = {m: model.encoder(m) for m in dataset.modalities}
    views = {m: model.encoders[m].view for m in lazy}
    dtypes = {m: model.encoders[m].dtype for m in lazy}
    encoded = encode_dataset(
        dataset,
        {m: e.spec for m, e in lazy.items()},
        Encoding(model.device, views=views, dtypes=dtypes, store=store),
        reporter,
        {m: e.given for m, e in lazy.items() if e.given is not None},
        max_bad=max_bad,
        ragged=[m for m in lazy if _takes_tokens(model, m)],
    )
    for modality, extraction in encoded.extractions.items():
        lazy[modality].check(extraction.fingerprint, extraction.digest)
    return encoded


def _takes_tokens(model: SavedModel, modality: str) -> bool:
    """Whether items of a modality may differ in length."""
    if isinstance(model, FusedModel):
        return takes_tokens(model.adapters[modality])
    return True


def embed_for(model: FusedModel, pairs: PairedLatents) -> SplitEmbeddings:
    """The embeddings of the items that these rows link."""
    return embed_split({m: model.adapters[m] for m in pairs.tables}, pairs, model.device)
