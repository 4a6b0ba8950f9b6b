"""The adapter `mixture`: several adapters side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.adapters.rows import width_of
from fusemix_core.config import Part
from fusemix_core.errors import ConfigError, short
from fusemix_core.interfaces import Adapter
from fusemix_core.registry import registry

Member = Mapping[str, Any]
"""An adapter as plain values: `{"name": …, "dim": its width, "options": {…}}`."""

LINEAR = {"name": "linear"}


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
        self, dim_in: int, dim_out: int, *, members: Sequence[Member] | None = None
    ) -> None:
        super().__init__()
        members = [{**LINEAR, "dim": dim_out}] if members is None else members
        self.members = nn.ModuleList(_built(member, dim_in) for member in members)
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


def as_member(adapter: Adapter, dim_in: int) -> dict[str, Any]:
    """The table by which a mixture builds the adapter again.

    Raises:
        ConfigError: if nobody registered its class.
    """
    spec = registry.spec_of("adapter", type(adapter))
    width = width_of(adapter, dim_in)
    return {"name": spec.name, "dim": width, "options": dict(adapter.options)}


def _built(member: Member, dim_in: int) -> Adapter:
    wrong = not isinstance(member, Mapping) or not {"name", "dim"} <= set(member)
    if wrong or type(member["dim"]) is not int or set(member) - {"name", "dim", "options"}:
        raise ConfigError(
            f"A member of a mixture is {short(repr(member))}.",
            'Each is a table: {"name": "mlp", "dim": 512, "options": {"blocks": 1}}.',
        )
    part = Part(member["name"], member.get("options") or {})
    check_member(part)
    return registry.build("adapter", part, dim_in, member["dim"])


def check_member(part: Part) -> None:
    """Raise `ConfigError` for an adapter that can't be a member of a mixture."""
    if "tokens" in registry.uses("adapter", part):
        raise ConfigError(
            f"The adapter '{part.name}' takes tokens, so it can't be a member of a mixture.",
            "Choose an adapter that takes one latent per item, such as 'wide' or 'mlp'.",
        )
