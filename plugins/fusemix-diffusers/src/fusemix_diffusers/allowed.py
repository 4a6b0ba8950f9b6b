"""Which classes a pipeline's folder may name. diffusers is never asked for any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        "DDIM",
        "DDPM",
        "DEISMultistep",
        "DPMSolverMultistep",
        "DPMSolverSDE",
        "DPMSolverSinglestep",
        "EulerAncestralDiscrete",
        "EulerDiscrete",
        "HeunDiscrete",
        "KDPM2AncestralDiscrete",
        "KDPM2Discrete",
        "LCM",
        "LMSDiscrete",
        "PNDM",
        "UniPCMultistep",
    )
)
_TEXT = frozenset({"CLIPTextModel", "CLIPTextModelWithProjection"})
_TOKENIZER = frozenset({"CLIPTokenizer", "CLIPTokenizerFast"})
_EYE = frozenset({"CLIPVisionModelWithProjection"})
_PIXELS = frozenset({"CLIPImageProcessor", "CLIPFeatureExtractor", "CLIPImageProcessorPil"})
_UNET = frozenset({"UNet2DConditionModel"})
_VAE = frozenset({"AutoencoderKL"})
_STABLE = {
    "vae": _VAE,
    "text_encoder": _TEXT,
    "tokenizer": _TOKENIZER,
    "unet": _UNET,
    "scheduler": SCHEDULERS,
    "feature_extractor": _PIXELS,
    "image_encoder": _EYE,
}

LIBRARIES = frozenset({"diffusers", "transformers", "stable_diffusion"})
"""Where a component's class may come from. `stable_diffusion` is a module of diffusers itself."""


@dataclass(frozen=True)
class Allowed:
    """A pipeline that can be used.

    Attributes:
        components: name → the classes that it may be of. A component may be missing.
        bridges: how it is conditioned → the target that does so; the first one by default.
    """

    components: Mapping[str, frozenset[str]]
    bridges: Mapping[str, str]


_GUIDANCE = "fusemix_diffusers.guidance:GuidanceGenerator"
_STABLE_BRIDGES = {
    "tokens": "fusemix_diffusers.tokens:TokensGenerator",
    "ip": "fusemix_diffusers.ip_adapter:IpAdapterGenerator",
    "guidance": _GUIDANCE,
}

PIPELINES: Mapping[str, Allowed] = {
    "KandinskyV22Pipeline": Allowed(
        {"unet": _UNET, "scheduler": SCHEDULERS, "movq": frozenset({"VQModel"})},
        {"image": "fusemix_diffusers.kandinsky:KandinskyGenerator"},
    ),
    "StableUnCLIPImg2ImgPipeline": Allowed(
        {
            **_STABLE,
            "image_normalizer": frozenset({"StableUnCLIPImageNormalizer"}),
            "image_noising_scheduler": SCHEDULERS,
        },
        {"image": "fusemix_diffusers.unclip:UnclipGenerator"},
    ),
    "StableDiffusionPipeline": Allowed(
        {**_STABLE, "safety_checker": frozenset({"StableDiffusionSafetyChecker"})},
        _STABLE_BRIDGES,
    ),
    "StableDiffusionXLPipeline": Allowed(
        {**_STABLE, "text_encoder_2": _TEXT, "tokenizer_2": _TOKENIZER},
        _STABLE_BRIDGES,
    ),
}
"""The pipelines that can be used, by the `_class_name` in their `model_index.json`."""

ELSEWHERE: Mapping[str, str] = {
    "StableUnCLIPPipeline": "It takes no image embedding. The same weights work as a "
    "StableUnCLIPImg2ImgPipeline: change _class_name in a copy of its model_index.json.",
    "FluxPriorReduxPipeline": "It takes images, no embeddings.",
}
"""Pipelines that one may take for one of these."""
