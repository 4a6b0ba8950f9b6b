"""Random miniatures of the pipelines, for tests and `Generator.tiny`; diffusers only on use."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
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

    diffusers: Any = importlib.import_module("diffusers")
    parts = {name: {**config, **changes.get(name, {})} for name, config in KANDINSKY.items()}
    parts["scheduler"].pop("_class_name")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        pipeline = diffusers.KandinskyV22Pipeline(
            unet=diffusers.UNet2DConditionModel(**parts["unet"]).eval(),
            movq=diffusers.VQModel(**parts["movq"]).eval(),
            scheduler=diffusers.DDIMScheduler(**parts["scheduler"]),
        )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    return pipeline


CLIP: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 24,
}
"""Of the text and image encoders."""

TOKENS = 48
"""Of every text."""


def clip_text(*, projected: bool = False) -> tuple[Any, Any]:
    """A random text encoder and its tokenizer, whose words are single bytes."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    letters = sorted(ByteLevel.alphabet())
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    tokenizer = CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=TOKENS
    )
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    config = CLIPTextConfig(
        vocab_size=len(words),
        max_position_embeddings=TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **CLIP,
    )
    return _seeded(lambda: kind(config)), tokenizer


def clip_image() -> tuple[Any, Any]:
    """A random image encoder and its processor."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    config = CLIPVisionConfig(image_size=16, patch_size=4, **CLIP)
    return (
        _seeded(lambda: CLIPVisionModelWithProjection(config)),
        CLIPImageProcessor(size=16, crop_size=16),
    )


def save_stable(folder: Path, *, kind: str = "StableDiffusionPipeline", **scheduler: Any) -> Any:
    """A random pipeline of Stable Diffusion, SDXL or Stable unCLIP, also saved.

    Args:
        folder: Where.
        kind: `StableDiffusionPipeline`, `StableDiffusionXLPipeline` or
            `StableUnCLIPImg2ImgPipeline`.
        scheduler: Settings of its DDIM.
    """
    diffusers: Any = importlib.import_module("diffusers")
    xl, unclip = "XL" in kind, "UnCLIP" in kind
    unet: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "sample_size": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 64 if xl else 32,
    }
    parts: dict[str, Any] = {}
    parts["text_encoder"], parts["tokenizer"] = clip_text()
    if xl:
        parts["text_encoder_2"], parts["tokenizer_2"] = clip_text(projected=True)
        unet |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
        unet["projection_class_embeddings_input_dim"] = 6 * 8 + CLIP["projection_dim"]
    parts["image_encoder"], parts["feature_extractor"] = clip_image()
    if unclip:
        unet |= {"class_embed_type": "projection"}
        unet["projection_class_embeddings_input_dim"] = 2 * CLIP["projection_dim"]
        parts["image_noising_scheduler"] = diffusers.DDPMScheduler(
            beta_schedule="squaredcos_cap_v2"
        )
    elif not xl:
        parts |= {"safety_checker": None, "requires_safety_checker": False}

    def built() -> None:
        parts["unet"] = diffusers.UNet2DConditionModel(**unet)
        parts["vae"] = diffusers.AutoencoderKL(
            block_out_channels=(32, 64),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
        )
        if unclip:
            from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer

            parts["image_normalizer"] = StableUnCLIPImageNormalizer(CLIP["projection_dim"])

    _seeded(built)
    parts["scheduler"] = diffusers.DDIMScheduler(
        steps_offset=1, clip_sample=False, set_alpha_to_one=False, **scheduler
    )
    pipeline = getattr(diffusers, kind)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder)
    for part in parts.values():
        if hasattr(part, "eval"):
            part.eval()
    return pipeline


def save_ip_adapter(folder: Path, width: int) -> Path:
    """A random IP-Adapter for the U-Net that `save_stable` saved into a folder, put beside it.

    Args:
        folder: Of the pipeline.
        width: Of the U-Net's cross-attention.
    """
    import torch
    from safetensors.torch import save_file

    diffusers: Any = importlib.import_module("diffusers")
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    source = torch.Generator().manual_seed(2)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source) * 0.2

    tensors = {
        "image_proj.proj.weight": drawn(4 * width, CLIP["projection_dim"]),
        "image_proj.proj.bias": drawn(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    cross = [n for n in unet.attn_processors if "attn2" in n]
    modules = dict(unet.named_modules())
    for i, name in enumerate(cross):
        out = modules[name.removesuffix(".processor")].to_q.out_features
        tensors[f"ip_adapter.{2 * i + 1}.to_k_ip.weight"] = drawn(out, width)
        tensors[f"ip_adapter.{2 * i + 1}.to_v_ip.weight"] = drawn(out, width)
    file = folder / "ip_adapter" / "ip-adapter.safetensors"
    file.parent.mkdir()
    save_file(tensors, file)
    return file


def _seeded(make: Callable[[], Any]) -> Any:
    """The result of `make`, with the same random weights each time."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return make()
