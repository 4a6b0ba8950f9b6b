"""Which pipelines the plain networks cover. Reads configs only; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BLOCKS = {
    "down_block_types": {"ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"},
    "up_block_types": {"ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D"},
}
_UNET = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": ("image",),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "encoder_hid_dim_type": ("image_proj",),
    "mid_block_only_cross_attention": (None, False),
    "mid_block_scale_factor": (1, None),
    "mid_block_type": ("UNetMidBlock2DSimpleCrossAttn",),
    "num_attention_heads": (None,),
    "only_cross_attention": (False,),
    "resnet_out_scale_factor": (1, None),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
}
_MUST_SAY = {
    "addition_embed_type",
    "encoder_hid_dim_type",
    "mid_block_type",
}
"""Settings whose default in diffusers is another."""
_MOVQ = {
    "act_fn": ("silu", "swish"),
    "lookup_from_codebook": (False,),
    "norm_type": ("group", "spatial"),
}
_SCHEDULER = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "sample", "v_prediction"),
    "thresholding": (False,),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "trained_betas": (None,),
}


def unet_fault(config: Mapping[str, Any]) -> str:
    """The reason why `UNet` can't take the place of this U-Net; empty if it can."""
    for key, known in _BLOCKS.items():
        if unknown := set(config.get(key, ("",))) - known:
            return f"{key} has {min(unknown)}"
    for key in ("layers_per_block", "cross_attention_dim", "attention_head_dim"):
        if not isinstance(config.get(key, 1), int):
            return f"{key} differs from block to block"
    return _fault(config, _UNET, _MUST_SAY)


def movq_fault(config: Mapping[str, Any]) -> str:
    """The reason why `Movq` can't take the place of this decoder; empty if it can."""
    blocks = set(config.get("up_block_types", ()))
    if unknown := blocks - {"UpDecoderBlock2D", "AttnUpDecoderBlock2D"}:
        return f"up_block_types has {min(unknown)}"
    if config.get("vq_embed_dim") not in (None, config.get("latent_channels", 3)):
        return "vq_embed_dim is not latent_channels"
    return _fault(config, _MOVQ)


def scheduler_fault(config: Mapping[str, Any]) -> str:
    """The reason why `Ddim` can't take the place of this scheduler; empty if it can."""
    if config.get("_class_name") != "DDIMScheduler":
        return f"the scheduler is {config.get('_class_name')}"
    return _fault(config, _SCHEDULER)


def _fault(
    config: Mapping[str, Any],
    known: Mapping[str, tuple[Any, ...]],
    must: set[str] | frozenset[str] = frozenset(),
) -> str:
    for key, values in known.items():
        if (key in must or key in config) and config.get(key) not in values:
            return f"{key} is {config.get(key)!r}"
    return ""
