"""The adapters of modalities that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.digests import digest_modules
from fusemix_core.errors import ConfigError, ContractError
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Adapter, LatentTable


def fixed_adapters(
    model: FusedModel | None, modalities: Sequence[str], tables: Mapping[str, LatentTable]
) -> dict[str, Adapter]:
    """Those of the modalities that stay, in eval mode on the CPU: the extended model's own, else
    the latents as they are. Raises `ConfigError` where the latents differ in width."""
    if model is not None:
        return {m: deepcopy(model.adapters[m]).cpu().eval() for m in modalities}
    dims = {m: tables[m].dim for m in modalities}
    if len(set(dims.values())) > 1:
        widths = ", ".join(f"{m} {d}" for m, d in dims.items())
        raise ConfigError(
            f"Fixed modalities share a space, and these latents differ in width: {widths}.",
            "Fix one of them.",
        )
    return {m: IdentityAdapter(d, d).eval() for m, d in dims.items()}


def check_unchanged(
    aligner: str, fitted: Mapping[str, Adapter], digests: Mapping[str, str]
) -> None:
    """Raise `ContractError` unless adapters have the weights whose digests are given."""
    for modality, digest in digests.items():
        if digest_modules([fitted[modality]]) != digest:
            raise ContractError(
                f"The aligner '{aligner}'", f"the fixed adapter of {modality} unchanged", "another"
            )
