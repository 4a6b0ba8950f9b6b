"""Any sentence-transformers model as a fusemix encoder: `st:NAME`, and presets. Metadata only;
imports neither sentence_transformers nor torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from fusemix_core.errors import ConfigError
from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec, EncoderSpec, FamilySpec
from fusemix_sentence_transformers.presets import OF_ANY_MODEL, PRESETS, REQUIRES, TARGET

EXAMPLE = "st:sentence-transformers/all-distilroberta-v1"


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec | FamilySpec]:
    """The presets and the family `st:`."""
    return [
        *PRESETS,
        FamilySpec(
            prefix="st",
            resolve="fusemix_sentence_transformers:resolve",
            summary="any sentence-transformers model on the hub, or saved on disk",
            example=EXAMPLE,
            requires=REQUIRES,
        ),
    ]


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The export `st`."""
    return [
        ComponentSpec(
            kind="exporter",
            name="st",
            target="fusemix_sentence_transformers.exporter:SentenceTransformersExporter",
            summary="a folder of sentence-transformers' own modules",
            requires=REQUIRES,
        )
    ]


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `st:NAME`, where NAME is a hub id, or `ID:REVISION` to pin one.

    Without, today's commit is pinned. What the model is beyond `modules.json` shows when it is
    loaded.
    """
    repo, _, revision = name.strip().partition(":")
    if not repo:
        raise ConfigError("'st:' names no model.", f"Example: {EXAMPLE}")
    listing = path / "modules.json" if path else _from_hub(repo, revision)
    if not path and listing:
        revision = listing.parent.name
    return EncoderSpec(
        name=f"st:{name}",
        modality="text",
        target=TARGET,
        summary=f"the sentence-transformers model {repo}",
        views=OF_ANY_MODEL,
        weights=repo,
        revision=revision,
        normalised=_normalises(listing),
        requires=REQUIRES,
        options={},
    )


def _from_hub(repo: str, revision: str) -> Path | None:
    """`modules.json` in the hub's cache, in the folder of its commit; None if it can't be had,
    which loading will tell."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, "modules.json", revision=revision or None))
    except (OSError, ValueError):
        return None


def _normalises(listing: Path | None) -> bool:
    try:
        modules = json.loads(listing.read_text("utf-8")) if listing else []
        return any(module["type"].endswith("Normalize") for module in modules)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
