"""Adapters made of adapters: `chain`, one after another, and `mixture`, several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.config import Part
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Adapter, takes_tokens
from fusemix_core.registry import registry

Stage = Mapping[str, Any]
"""An adapter as plain values: `{"name": …, "dim": its width, "options": {…}}`."""

LINEAR = {"name": "linear", "options": {}}


class ChainAdapter(Adapter):
    """z = last(… first(x)): each stage embeds what the stage before it gives.

    Args:
        dim_in: width of the latents.
        dim_out: width of the embeddings; the last stage's `dim`.
        stages: the adapters in order, each `{"name", "dim", "options"}`; by default one linear map.

    Raises:
        ConfigError: if there is no stage, a stage is not such a table or takes tokens, or the last
            stage's width isn't `dim_out`.

    Example:
        ChainAdapter(1280, 512, stages=[
            {"name": "kernel", "dim": 384},
            {"name": "mlp", "dim": 512, "options": {"blocks": 1}},
        ])
    """

    def __init__(self, dim_in: int, dim_out: int, *, stages: Sequence[Stage] | None = None) -> None:
        super().__init__()
        stages = [{**LINEAR, "dim": dim_out}] if stages is None else stages
        self.stages = nn.ModuleList()
        for stage in stages:
            self.stages.append(_built("chain", stage, dim_in))
            dim_in = stage["dim"]
        if not stages or dim_in != dim_out:
            raise ConfigError(
                f"The stages of a chain end at width {dim_in}, and {dim_out} is wanted.",
                "Give the last stage the width of the embeddings.",
            )

    def forward(self, latents: Tensor) -> Tensor:
        for stage in self.stages:
            latents = stage(latents)
        return latents


class MixtureAdapter(Adapter):
    """z = [√w₁ z₁/|z₁|, √w₂ z₂/|z₂|, …]: the cosine of two embeddings is Σ wᵢ cosᵢ, the weighted
    mean of what its members say.

    The weights `[members]` are a buffer, each at least 0 and 1 in sum; equal until they are set.

    Args:
        dim_in: width of the latents.
        dim_out: width of the embeddings; the members' widths together.
        members: the adapters, each `{"name", "dim", "options"}`; by default one linear map.

    Raises:
        ConfigError: if there is no member, a member is not such a table or takes tokens, or the
            widths together aren't `dim_out`.

    Example:
        MixtureAdapter(1280, 896, members=[
            {"name": "kernel", "dim": 384, "options": {"landmarks": 4096}},
            {"name": "mlp", "dim": 512, "options": {"blocks": 1}},
        ])
    """

    def __init__(
        self, dim_in: int, dim_out: int, *, members: Sequence[Stage] | None = None
    ) -> None:
        super().__init__()
        members = [{**LINEAR, "dim": dim_out}] if members is None else members
        self.members = nn.ModuleList(_built("mixture", member, dim_in) for member in members)
        width = sum(member["dim"] for member in members)
        if not members or width != dim_out:
            raise ConfigError(
                f"The members of a mixture are {width} wide together, and {dim_out} is wanted.",
                "Give the members widths that add up to that of the embeddings.",
            )
        self.register_buffer("weights", torch.full((len(members),), 1 / len(members)))

    def forward(self, latents: Tensor) -> Tensor:
        return torch.cat(
            [
                weight.sqrt() * normalize(member(latents), dim=1)
                for weight, member in zip(self.weights, self.members, strict=True)
            ],
            dim=1,
        )


def as_stage(adapter: Adapter, name: str, dim: int) -> dict[str, Any]:
    """The table by which a chain or a mixture builds an adapter again."""
    return {"name": name, "dim": dim, "options": dict(adapter.options)}


def _built(kind: str, stage: Stage, dim_in: int) -> Adapter:
    wrong = not isinstance(stage, Mapping) or not {"name", "dim"} <= set(stage)
    if wrong or type(stage["dim"]) is not int or set(stage) > {"name", "dim", "options"}:
        raise ConfigError(
            f"An adapter of a {kind} is {stage!r}.",
            'Each is a table: {"name": "mlp", "dim": 512, "options": {"blocks": 1}}.',
        )
    part = Part(stage["name"], stage.get("options") or {})
    adapter = registry.build("adapter", part, dim_in, stage["dim"])
    if takes_tokens(adapter):
        raise ConfigError(
            f"The adapter '{part.name}' takes tokens, so it can't be part of a {kind}.",
            "Choose an adapter that takes one latent per item, such as 'mlp'.",
        )
    return adapter
