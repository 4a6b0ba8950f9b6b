"""Loads what transformers has of a model, from a hub or a folder: safetensors and JSON only.

Plugins that build on transformers use these two, so that all have the same promises: the pinned
revision, no pickle, no code of the repository, and not one weight left to chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from fusemix_core.errors import ArtefactError
from fusemix_core.specs import EncoderSpec


def load_model(
    kind: Any,
    spec: EncoderSpec,
    dtype: torch.dtype = torch.float32,
    *,
    unused: Sequence[str] = (),
    **kwargs: Any,
) -> PreTrainedModel:
    """The model of class `kind` (`AutoModel`, `Dinov2Model`, …) at `spec.weights`; frozen, in eval
    mode, on the CPU.

    unused: patterns (`re.search`) of parameters that the latents do not depend on, and which may
    therefore be missing. Raises ArtefactError where the model can't be had, has no safetensors, or
    lacks any other weight: transformers would make that one up at random.
    """
    with quiet(), _explained(spec):
        model, found = kind.from_pretrained(
            spec.weights,
            **origin(spec),
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
            **kwargs,
        )
    lacking = sorted(
        name
        for name in (*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"]))
        if not any(re.search(pattern, name) for pattern in unused)
    )
    if lacking:
        raise ArtefactError(
            f"The weights of {spec.name} in {spec.weights} lack {len(lacking)} tensors of "
            f"{type(model).__name__} or have them in another shape, the first {lacking[0]}.",
            "These weights belong to another model, or the file is not complete.",
        )
    return model.requires_grad_(False).eval()


def load_processor(kind: Any, spec: EncoderSpec, **kwargs: Any) -> Any:
    """The tokenizer, image processor, feature extractor or config of class `kind` at
    `spec.weights`. Raises ArtefactError where it can't be had."""
    with quiet(), _explained(spec):
        return kind.from_pretrained(spec.weights, **origin(spec), **kwargs)


def origin(spec: EncoderSpec) -> dict[str, Any]:
    """Where `from_pretrained` may look for `spec.weights`, and that it must run no code there."""
    return {
        "revision": spec.revision or None,
        "local_files_only": spec.local,
        "trust_remote_code": False,
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own bars and its notes on what it loads, of which we say what counts."""
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _explained(spec: EncoderSpec) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        lines = str(error).strip().splitlines()
        raise ArtefactError(
            f"{spec.name} can't be loaded from {spec.weights}: "
            f"{lines[0] if lines else type(error).__name__}",
            f"Check its name and the network, or give a copy on disk: "
            f"{spec.name.partition('@')[0]}@FOLDER. Only safetensors are read, and no code of the "
            "repository is run.",
        ) from error
