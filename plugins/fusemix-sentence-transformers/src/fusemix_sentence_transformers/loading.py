"""Loads a sentence-transformers model from a hub or a folder: safetensors only, every tensor there,
none of its code run unasked, and as the spec declares it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fusemix_core.errors import ArtefactError, FusemixError
from fusemix_core.specs import EncoderSpec
from fusemix_core.trust import trusts_code_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_POOLER = re.compile(r"(^|\.)pooler\.")
_LOCK = threading.Lock()


def read_model(weights: str, revision: str = "", *, local: bool = False) -> SentenceTransformer:
    """The sentence-transformers model at a hub id or in a folder, on the CPU.

    Raises ArtefactError if it can't be had, has no safetensors, or lacks a weight that its
    latents depend on.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import is_sentence_transformer_model

    if local and not (Path(weights) / "modules.json").is_file():
        raise _not_one(weights)
    try:
        # A pooler that plays no part may be missing: it is drawn the same each time, and not from
        # the user's generator.
        with _without_progress_bars(), _recorded() as lacking, torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            model = SentenceTransformer(
                weights,
                device="cpu",
                revision=revision or None,
                trust_remote_code=trusts_code_of(weights),
                local_files_only=local,
                model_kwargs={"use_safetensors": True},
            )
            known = local or is_sentence_transformer_model(weights, revision=revision or None)
    except (FusemixError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # damaged files raise anything
        raise ArtefactError(
            f"The sentence-transformers model {weights} can't be loaded: {_first_line(error)}",
            "Check its name and the network, or give a copy on disk: st:NAME@FOLDER. Only "
            "safetensors are read, and no code of the repository is run unasked (if you have read "
            f"and trust it: fusemix --trust-remote-code {weights} …). A repository that has only "
            "pytorch_model.bin: fusemix convert-weights (from fusemix-hf) makes such a copy.",
        ) from error
    if not known:
        raise _not_one(weights)
    lacking = [name for name in lacking if not (_POOLER.search(name) and _reads_tokens(model))]
    if lacking:
        raise ArtefactError(
            f"The weights in {weights} lack {len(lacking)} tensors of their model or have them in "
            f"another shape, the first {min(lacking)}.",
            "These weights belong to another model, or the file is not complete.",
        )
    return model


def check_facts(spec: EncoderSpec, model: SentenceTransformer) -> None:
    """Raise ArtefactError where the model's own folder contradicts what the spec declares."""
    faults = []
    pooling, wanted = _pooling(model), spec.options.get("pooling")
    if wanted and pooling != wanted:
        faults.append(f"pools by {pooling or 'nothing'}, not by {wanted}")
    if spec.normalised and not modules_of(model, "Normalize"):
        faults.append("does not normalise its latents to unit length")
    dim = model.get_embedding_dimension()
    if spec.dim and dim and dim != spec.dim:
        faults.append(f"gives latents of {dim} dimensions, not {spec.dim}")
    if faults:
        raise ArtefactError(
            f"The model in {spec.weights} is not {spec.name.partition('@')[0]}: "
            f"it {' and it '.join(faults)}.",
            "Take a model as its own folder declares it: st:NAME, or st:NAME@FOLDER.",
        )


def modules_of(model: SentenceTransformer, *kinds: str) -> list[nn.Module]:
    """The model's modules whose class is named so, in order."""
    return [module for module in model if type(module).__name__ in kinds]


def _pooling(model: SentenceTransformer) -> str:
    modes: list[Any] = [module.pooling_mode for module in modules_of(model, "Pooling")]
    return "+".join(m if isinstance(m, str) else "+".join(m) for m in modes)


def _reads_tokens(model: SentenceTransformer) -> bool:
    """Whether the latents come from the transformer's tokens, so that its pooler plays no part."""
    first: Any = model[0]
    text = getattr(first, "modality_config", {}).get("text", {})
    return text.get("method_output_name") == "last_hidden_state"


def _not_one(weights: str) -> ArtefactError:
    return ArtefactError(
        f"{weights} is not a sentence-transformers model: it has no modules.json.",
        "So nothing says how to pool its tokens. Use a model that was saved by "
        "sentence-transformers, or another plugin's family for plain transformers.",
    )


@contextmanager
def _recorded() -> Iterator[list[str]]:
    """Records the tensors that transformers does not find while it loads: it would make them up at
    random, and sentence_transformers does not tell."""
    from transformers import PreTrainedModel

    lacking: list[str] = []
    with _LOCK:
        original = PreTrainedModel.__dict__["from_pretrained"]

        def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
            kwargs["output_loading_info"] = True
            model, found = original.__func__(cls, *args, **kwargs)
            lacking.extend(found["missing_keys"])
            lacking.extend(key for key, *_ in found["mismatched_keys"])
            return model

        PreTrainedModel.from_pretrained = classmethod(from_pretrained)
        try:
            yield lacking
        finally:
            PreTrainedModel.from_pretrained = original


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
