"""Loads what transformers has of a model, from a hub or a folder: safetensors and JSON only.

Plugins that build on transformers use these two, so that all have the same promises: the pinned
revision, no pickle, no code of the repository unasked, and not one weight left to chance.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging

from fusemix_core.errors import ArtefactError, FusemixError
from fusemix_core.specs import EncoderSpec
from fusemix_core.trust import trusts_code_of
from fusemix_hf.files import first_line

M = TypeVar("M", bound=PreTrainedModel)
N = TypeVar("N", bound=nn.Module)


def frozen(model: N, device: torch.device, dtype: torch.dtype | None = None) -> N:
    """The model itself: without gradients, in eval mode, on a device and in a dtype."""
    model.requires_grad_(False).eval().to(device=device, dtype=dtype)
    return model


@overload
def load_model(
    kind: type[M],
    spec: EncoderSpec,
    dtype: torch.dtype = torch.float32,
    *,
    unused: Sequence[str] = (),
    **kwargs: Any,
) -> M: ...
@overload
def load_model(
    kind: Any,
    spec: EncoderSpec,
    dtype: torch.dtype = torch.float32,
    *,
    unused: Sequence[str] = (),
    **kwargs: Any,
) -> PreTrainedModel: ...
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
    therefore be missing. Raises ArtefactError if the model can't be had, has no safetensors, or
    lacks any other weight: transformers would make that one up at random.
    """
    return load_with_gaps(kind, spec, dtype, unused=unused, **kwargs)[0]


def load_with_gaps(
    kind: Any,
    spec: EncoderSpec,
    dtype: torch.dtype = torch.float32,
    *,
    unused: Sequence[str] = (),
    **kwargs: Any,
) -> tuple[PreTrainedModel, frozenset[str]]:
    """As `load_model`, and the names of the missing parameters that `unused` lets pass."""
    # What `unused` lets pass is drawn: the same each time, and not from the user's generator.
    with quiet(), _explained(spec), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model, found = kind.from_pretrained(
            spec.weights,
            **origin(spec),
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
            **kwargs,
        )
    gaps = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
    spared = {name for name in gaps if any(re.search(pattern, name) for pattern in unused)}
    if lacking := gaps - spared:
        raise ArtefactError(
            f"The weights of {spec.name} in {spec.weights} lack {len(lacking)} tensors of "
            f"{type(model).__name__} or have them in another shape, the first {min(lacking)}.",
            "These weights belong to another model, or the file is not complete.",
        )
    return model.requires_grad_(False).eval(), frozenset(spared)


def load_processor(kind: Any, spec: EncoderSpec, **kwargs: Any) -> Any:
    """The tokenizer, image processor, feature extractor or config of class `kind` at
    `spec.weights`. Raises ArtefactError if it can't be had."""
    with quiet(), _explained(spec):
        processor = kind.from_pretrained(spec.weights, **origin(spec), **kwargs)
    special = getattr(processor, "all_special_ids", None)
    # Without its files transformers makes a tokenizer that knows no word, silently.
    if special is not None and len(processor) <= len(set(special)):
        raise ArtefactError(
            f"The tokenizer in {spec.weights} knows no word.",
            "Its files are missing: tokenizer.json, or the vocabulary that belongs to it.",
        )
    return processor


def origin(spec: EncoderSpec) -> dict[str, Any]:
    """Where `from_pretrained` may look for `spec.weights`, and whether it may run code there."""
    return {
        "revision": spec.revision or None,
        "local_files_only": spec.local,
        "trust_remote_code": trusts_code_of(spec.weights),
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and its notes on what it loads, of which we say what counts."""
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
    except (FusemixError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # damaged files raise anything
        name = spec.name.partition("@")[0]
        if _is_gated(error):
            raise ArtefactError(
                f"{spec.name} is gated: the hub gives {spec.weights} only to who accepted its "
                f"licence{f' ({spec.licence})' if spec.licence else ''}.",
                f"Accept it at https://huggingface.co/{spec.weights}, log in with `hf auth login` "
                f"(or set HF_TOKEN), and run this again. Or give a copy on disk: {name}@FOLDER.",
            ) from error
        if "trust_remote_code" in str(error):
            raise ArtefactError(
                f"{spec.name} needs Python code from its repository, {spec.weights}, which is "
                "not run unasked.",
                "Use a model whose architecture transformers has itself, or a plugin that brings "
                "the code (fusemix new-plugin). If you have read that code and trust it: "
                f"fusemix --trust-remote-code {spec.weights} …",
            ) from error
        if _only_pickled(spec, error):
            source = f"{name}@{spec.weights}" if spec.local else name
            raise ArtefactError(
                f"The weights of {spec.name} in {spec.weights} are pickled (.bin), and only "
                "safetensors are read.",
                f"Convert them once to safetensors: fusemix convert-weights {source} FOLDER",
            ) from error
        raise ArtefactError(
            f"{spec.name} can't be loaded from {spec.weights}: {first_line(error)}",
            f"Check its name and the network, or give a copy on disk: {name}@FOLDER. Only "
            "safetensors are read, and no code of the repository is run.",
        ) from error


def _is_gated(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, GatedRepoError):
        error = error.__cause__
    return error is not None


def _only_pickled(spec: EncoderSpec, error: Exception) -> bool:
    """Whether loading failed because there is a .bin and no .safetensors."""
    if "safetensors" not in str(error):
        return False
    folder = Path(spec.weights)
    if not folder.is_dir():
        config = try_to_load_from_cache(spec.weights, "config.json", revision=spec.revision or None)
        folder = Path(config).parent if isinstance(config, str) else folder
    if list(folder.glob("*.safetensors*")):
        return False
    # Of a hub's repository only what was asked for is in the cache.
    return bool(list(folder.glob("pytorch_model*.bin"))) or "does not appear to have" in str(error)
