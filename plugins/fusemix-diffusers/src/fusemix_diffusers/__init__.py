"""Image generators of diffusers, conditioned by a fused embedding: `diffusers:REPO[@FOLDER]`.
Metadata only; imports neither diffusers nor torch."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import FamilySpec

REQUIRES = {
    "diffusers": "diffusers>=0.42,<0.43",
    "transformers": "transformers>=5.4",
    "huggingface_hub": "huggingface_hub>=1.0",
}
"""Packages that pipelines need; Kandinsky's plain networks need none of them."""


@hookimpl
def fusemix_generators() -> Iterable[FamilySpec]:
    """The family `diffusers:`."""
    return [
        FamilySpec(
            prefix="diffusers",
            resolve="fusemix_diffusers.resolving:resolve",
            summary="Kandinsky 2.2, unCLIP, Stable Diffusion and SDXL, as diffusers has them",
            example="diffusers:kandinsky-community/kandinsky-2-2-decoder",
            requires={"huggingface_hub": REQUIRES["huggingface_hub"]},
        )
    ]


@hookimpl
def fusemix_encoders() -> Iterable[FamilySpec]:
    """The family `condition:`, the encoders inside such pipelines."""
    return [
        FamilySpec(
            prefix="condition",
            resolve="fusemix_diffusers.conditions:resolve",
            summary="the text or image encoder inside a pipeline of diffusers",
            example="condition:stable-diffusion-v1-5/stable-diffusion-v1-5",
            requires=REQUIRES,
        )
    ]
