"""Random miniatures of the pipelines, for tests and `Generator.tiny`; diffusers only on use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

KANDINSKY: Mapping[str, Mapping[str, Any]] = {
    "unet": {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 8,
        "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 16,
        "encoder_hid_dim": 16,
        "encoder_hid_dim_type": "image_proj",
        "addition_embed_type": "image",
        "resnet_time_scale_shift": "scale_shift",
    },
    "movq": {
        "block_out_channels": [32, 64],
        "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        "latent_channels": 4,
        "num_vq_embeddings": 12,
        "norm_type": "spatial",
    },
    "scheduler": {
        "_class_name": "DDIMScheduler",
        "beta_schedule": "linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "prediction_type": "v_prediction",
    },
}
"""Of a `KandinskyV22Pipeline` with images of 16 pixels a side."""


def save_kandinsky(folder: Path, **changes: dict[str, Any]) -> Any:
    """The pipeline of `KANDINSKY` with changed settings, also saved."""
    import torch
    from diffusers import (
        DDIMScheduler,
        KandinskyV22Pipeline,
        UNet2DConditionModel,
        VQModel,
    )

    parts = {name: {**config, **changes.get(name, {})} for name, config in KANDINSKY.items()}
    parts["scheduler"].pop("_class_name")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        pipeline = KandinskyV22Pipeline(
            unet=UNet2DConditionModel(**parts["unet"]).eval(),
            movq=VQModel(**parts["movq"]).eval(),
            scheduler=DDIMScheduler(**parts["scheduler"]),
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline
