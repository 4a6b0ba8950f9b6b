"""The export `st`: a fused model as a folder that sentence-transformers loads, without our code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.errors import ConfigError
from fusemix_core.exports.base import Exporter, ExportSource
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Adapter

TOOL = "sentence-transformers"

FIT = (
    "Fit a model that can be: fusemix align … --recipe exportable\n"
    "On figures of textbooks such a model finds 22.7% of the partners first, kcca 25.5%."
)

CODE = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{out}")"""

EXAMPLES = {
    "text": 'rows = model.encode(["a map"])',
    "image": 'rows = model.encode([PIL.Image.open("photo.jpg")])',
}


class SentenceTransformersExporter(Exporter):
    """A folder of sentence-transformers' own modules: one route for each modality, then unit norm.

    It loads without `trust_remote_code`, in any program that takes such folders. It contains the
    embeddings of the model; a scorer other than cosine stays outside.
    """

    def check(self, source: ExportSource) -> None:
        for modality, info in source.model.encoders.items():
            if info.view != "pooled":
                raise ConfigError(
                    f"The latents of {modality} are the view '{info.view}', and sentence-"
                    "transformers can't express it: its models give one vector per item.",
                    FIT,
                )
            check_adapter(source.model, modality)

    def write(self, source: ExportSource, folder: Path) -> Sequence[str]:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.base.modules import Router
        from sentence_transformers.sentence_transformer.modules import Normalize

        model = source.model
        routes: dict[str, list[Any]] = {}
        for modality in model.modalities:
            source.reporter.stage(f"Exporting {modality}")
            with torch.random.fork_rng(devices=[]):  # layers are drawn before they are filled
                routes[modality] = [*encoder_modules(model, modality), *layers(model, modality)]
        router = Router(routes, default_route=None, allow_empty_key=False)
        whole = SentenceTransformer(modules=[router, Normalize()], device="cpu")
        whole.save_pretrained(str(folder), create_model_card=False)
        takes = [model.encoders[m].takes for m in model.modalities]
        lines = [CODE, *(EXAMPLES[t] for t in takes if t in EXAMPLES)]
        if model.scorer_name != "cosine":
            lines.append(
                f"# The folder has no place for the scorer {model.scorer_name}: rankings are "
                "those of cosine."
            )
        return lines


def encoder_modules(model: FusedModel, modality: str) -> list[nn.Module]:
    """The encoder in the library's classes. Raises `ConfigError` if there are none."""
    info = model.encoders[modality]
    modules = model.encoder(modality).load().native(TOOL, info.view)
    if modules is None:
        raise ConfigError(
            f"The {modality} encoder '{info.name}' can't be written as modules of "
            "sentence-transformers.",
            "Those that can: models of sentence-transformers without a prompt, and models of timm "
            "that take the mean of a map. For any other: fusemix export … --to onnx",
        )
    return modules


def check_adapter(model: FusedModel, modality: str) -> None:
    """Raise `ConfigError` for an adapter that `layers` can't write, with what is in the way."""
    adapter, name = model.adapters[modality], model.adapter_part(modality).name
    if not isinstance(adapter, KernelAdapter | LinearAdapter | IdentityAdapter):
        raise ConfigError(
            f"The adapter '{name}' of {modality} can't be written as layers of "
            "sentence-transformers: only kernel and linear maps can.",
            FIT,
        )
    if isinstance(adapter, KernelAdapter) and not adapter.plain:
        raise ConfigError(
            f"The latents of {modality} are replaced by their square root, and sentence-"
            "transformers has no such layer.",
            f"{FIT}\nOnly this: --recipe kcca --set aligner.root=false",
        )


def layers(model: FusedModel, modality: str) -> list[nn.Module]:
    """An adapter as layers that give the same, but for rounding.

    A kernel map is exact. With the unit latent p, u = (p - c) / s and a landmark l, |u - l|² is
    affine in p, and 1 / (1 + x) is 1 - softsign(x) for x ≥ 0. So the similarities are one layer
    with softsign and a linear residual, and the map is a second.
    """
    from sentence_transformers.sentence_transformer.modules import Normalize

    adapter: Adapter = model.adapters[modality]
    if isinstance(adapter, IdentityAdapter):
        return []
    if isinstance(adapter, LinearAdapter):
        return [_dense(adapter.out.weight, adapter.out.bias)]
    assert isinstance(adapter, KernelAdapter)  # which `check_adapter` saw to
    c, s = adapter.centre.double(), adapter.scale.double()
    weight, bias, marks = (x.detach().double() for x in
                           (adapter.weight, adapter.bias, adapter.landmarks))  # fmt: skip
    if not len(marks):
        return [Normalize(), _dense(weight.T / s, bias - (c / s) @ weight)]
    if len(marks) == len(c):  # the library then takes the input itself as the residual
        marks = torch.cat([marks, marks[:1]])
        weight = torch.cat([weight, weight.new_zeros(1, weight.shape[1])])
    squares = _dense(
        -2 * (c / s + marks) / s,
        (1 + c @ c) / s**2 + 2 * (marks @ c) / s + marks.square().sum(1),
        nn.Softsign(),
        residual=-adapter.linear * marks / s,
    )
    constant = 1 - adapter.linear * (marks @ c) / s
    return [Normalize(), squares, _dense(-weight.T, bias + constant @ weight)]


def _dense(
    weight: Tensor,
    bias: Tensor | None,
    activation: nn.Module | None = None,
    residual: Tensor | None = None,
) -> nn.Module:
    """activation(x weightᵀ + bias) + x residualᵀ, in float32."""
    from sentence_transformers.sentence_transformer.modules import Dense

    rows, columns = weight.shape
    layer = Dense(columns, rows, bias is not None, activation, use_residual=residual is not None)
    with torch.no_grad():
        layer.linear.weight.copy_(weight)
        if bias is not None:
            layer.linear.bias.copy_(bias)
        if residual is not None:
            layer.residual.weight.copy_(residual)
    return layer
