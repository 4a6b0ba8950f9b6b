"""Whether a fused model is the one that something was fitted to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch

from fusemix_core.config import to_dict
from fusemix_core.saved.model import SavedModel


def identity(model: SavedModel, modalities: Sequence[str]) -> str:
    """A digest of how a fused model embeds and scores some modalities: the encoders, the adapters
    with their weights, and the name of the scorer. Modalities that join the model
    later don't change it.

    Args:
        model: a fused model.
        modalities: some of its own.
    """
    digest = hashlib.sha256()
    for modality in modalities:
        info, name = model.encoders[modality], f"adapter.{modality}"
        parts = [modality, info.fingerprint, info.view, to_dict(model.part(name))]
        digest.update(json.dumps(parts, sort_keys=True).encode())
        for key, tensor in sorted(model.parts[name].tensors.items()):
            digest.update(f"\0{key} {tuple(tensor.shape)}\0".encode())
            held = tensor.detach().cpu().contiguous().view(-1)
            digest.update(held.view(torch.uint8).numpy().tobytes())  # NumPy has no bfloat16
    digest.update(json.dumps(model.part("scorer").name).encode())
    return digest.hexdigest()
