"""The text side of a fused model as one ONNX file for a browser, with its tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.encoder import Encoder
from fusemix_core.errors import ConfigError
from fusemix_core.exports.onnx import first_line, samples
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Network, Scorer, as_rows, takes_tokens
from fusemix_core.latents import exported
from fusemix_serve.web.scores import probe, shift

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""The inputs that the page can make of a text."""
_LARGE = 4096
"""Numbers from which a weight is stored in half precision."""


class Asked(nn.Module):
    """A text's tokens to its unit-norm embedding, and the shift of its scores for each target."""

    def __init__(
        self,
        network: nn.Module,
        adapter: nn.Module,
        scorer: Scorer,
        modality: str,
        asks: Sequence[str],
        slopes: Mapping[str, float],
        dim: int,
    ) -> None:
        super().__init__()
        self.probe = nn.Buffer(probe(dim))
        self.network, self.adapter, self.scorer = network, adapter, scorer
        self.modality, self.asks, self.slopes = modality, tuple(asks), dict(slopes)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(float32 `[n, d]`, float32 `[n, targets]`)."""
        rows = normalize(self.adapter(as_rows(self.network(**inputs)).float()), dim=1)
        shifts = [
            shift(self.scorer, rows, self.modality, target, self.asks, slope, self.probe)
            for target, slope in self.slopes.items()
        ]
        return rows, torch.stack(shifts, dim=1)


def write_words(
    model: FusedModel,
    modality: str,
    asks: Sequence[str],
    slopes: Mapping[str, float],
    folder: Path,
    half: bool,
) -> dict[str, Any]:
    """Write `model.onnx` and `tokenizer.json` to an empty folder.

    Args:
        model: the fused model.
        modality: one whose items are texts.
        asks: the modalities of queries, in the order of the lifted columns.
        slopes: target → slope of its scores.
        folder: where.
        half: whether large weights are stored in half precision. All is computed in float32.

    Returns:
        The facts that the page needs to encode texts.

    Raises:
        ConfigError: the encoder or the adapter can't be written, with the reason.
    """
    name, adapter = model.encoders[modality].name, model.adapters[modality]
    if takes_tokens(adapter):
        raise ConfigError(f"The adapter of {modality} takes tokens, which can't be exported.")
    encoder = model.encoder(modality).load()
    view = model.encoders[modality].view
    network, inputs = encoder.network(view), None
    if network is not None:
        inputs = exported.inputs_of(encoder, network, view, samples("text"))
    if network is None or inputs is None:
        raise ConfigError(f"The encoder '{name}' has no network of its own.")
    if not set(inputs) <= set(INPUTS):
        raise ConfigError(f"The encoder '{name}' takes {', '.join(inputs)}.")
    tokenizer = _tokenizer(encoder, name, folder)
    adapter = copy.deepcopy(adapter).cpu().float().eval()
    module = Asked(network.module, adapter, model.scorer, modality, asks, slopes, model.dim)
    try:
        content = exported.exported(
            Network(module.eval(), network.axes), inputs, ("vector", "shift")
        )
    except Exception as error:  # an exporter raises anything
        raise ConfigError(f"The encoder '{name}' can't be exported: {first_line(error)}") from error
    (folder / "model.onnx").write_bytes(halved(content) if half else content)
    return tokenizer | {"inputs": list(inputs)}


def _tokenizer(encoder: Encoder, name: str, folder: Path) -> dict[str, Any]:
    told = dict(encoder.save_preprocessing(folder))
    if told.get("tokenizer") != "tokenizer.json":
        raise ConfigError(f"The encoder '{name}' has no tokenizer that a browser can read.")
    return {"prompt": told.get("prompt") or "", "max_tokens": told.get("max_tokens")}


def halved(content: bytes) -> bytes:
    """An ONNX file with its large float32 weights in float16, cast back when it is loaded."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(content)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < _LARGE:
            continue
        values = numpy_helper.to_array(weight)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        full, short = weight.name, f"{weight.name}.half"
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), short))
        casts.append(helper.make_node("Cast", [short], [full], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()
