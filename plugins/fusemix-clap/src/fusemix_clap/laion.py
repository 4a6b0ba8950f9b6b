"""Original checkpoints of LAION's, `laion-clap@FILE.pt`, through the package laion-clap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ClapFeatureExtractor

from fusemix_clap.audio import ClapAudioEncoder
from fusemix_clap.laion_package import build
from fusemix_clap.sound import Heard, heard_fused, repeat_pad, windows
from fusemix_clap.text import ClapTextEncoder
from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.specs import EncoderSpec

DIM = 512
FULL_SCALE = np.float32(32767)
AUDIO_MODELS = {96: "HTSAT-tiny", 128: "HTSAT-base", 256: "HTSAT-large"}
"""The package's name of an audio tower, by the width of its patches."""
PATCHES = "audio_branch.patch_embed.proj.weight"
FUSION = "audio_branch.patch_embed.fusion_model."
POSITIONS = "text_branch.embeddings.position_ids"
"""A buffer that older versions of transformers saved."""


class LaionAudioEncoder(ClapAudioEncoder):
    """The audio tower of an original checkpoint. As the package does, samples are rounded to 16
    bits; long clips are heard as by `ClapAudioEncoder`, while the package takes random crops."""

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The checkpoint at `spec.weights`; whether it fuses features, it tells itself.

        Raises ConfigError without a file or in another dtype than float32, ArtefactError for a file
        that is not such a checkpoint and for tokenizers that are not in the cache.
        """
        model, _, fusion = read_model(spec, dtype)
        truncation = "fusion" if fusion else "rand_trunc"
        features = ClapFeatureExtractor(
            truncation=truncation, frequency_min=50, frequency_max=14_000
        )
        return cls(spec, _AudioTower(model, fusion=fusion), features, device)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> ClapAudioEncoder:  # pyrefly: ignore[bad-override]
        """transformers' miniature of the same architecture, which needs no package."""
        return ClapAudioEncoder.tiny(replace(spec, local=False))

    def _heard(self, samples: np.ndarray) -> list[Heard]:
        sixteen_bits = (np.clip(samples, -1, 1) * FULL_SCALE).astype(np.int16)
        samples = sixteen_bits / FULL_SCALE
        if self.fusion:
            hop = self.features.hop_length
            return [heard_fused(samples, self.size, hop, self._fusion_mel)]
        full = [torch.from_numpy(repeat_pad(w, self.size)) for w in windows(samples, self.size)]
        lengths = [len(w) for w in windows(samples, self.size)]
        return [Heard(w, n) for w, n in zip(full, lengths, strict=True)]

    def _shape(self) -> tuple[int, ...]:
        return super()._shape() if self.fusion else (self.size,)


class LaionTextEncoder(ClapTextEncoder):
    """The text tower of an original checkpoint."""

    @classmethod
    def load(cls, spec: EncoderSpec, device: torch.device, dtype: torch.dtype) -> Self:
        """The checkpoint at `spec.weights`; errors as of `LaionAudioEncoder.load`."""
        model, tokenizer, _ = read_model(spec, dtype)
        return cls(spec, _TextTower(model), tokenizer, device)

    @classmethod
    def tiny(cls, spec: EncoderSpec) -> ClapTextEncoder:  # pyrefly: ignore[bad-override]
        """transformers' miniature of the same architecture, which needs no package."""
        return ClapTextEncoder.tiny(replace(spec, local=False))


class _AudioTower(nn.Module):
    """The package's audio branch and projection, called as transformers' audio tower is."""

    def __init__(self, clap: Any, *, fusion: bool) -> None:
        super().__init__()
        self.branch, self.projection = clap.audio_branch, clap.audio_projection
        self.input = "mel_fusion" if fusion else "waveform"
        self.config = SimpleNamespace(projection_dim=DIM)

    def forward(self, input_features: Tensor, is_longer: Tensor) -> SimpleNamespace:
        inputs = {self.input: input_features, "longer": is_longer}
        output = self.branch(inputs, device=input_features.device)
        return SimpleNamespace(audio_embeds=self.projection(output["embedding"]))


class _TextTower(nn.Module):
    """The package's text branch and projection, called as transformers' text tower is."""

    def __init__(self, clap: Any) -> None:
        super().__init__()
        self.branch, self.projection = clap.text_branch, clap.text_projection
        self.config = SimpleNamespace(
            projection_dim=DIM, hidden_size=clap.text_branch.config.hidden_size
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        output = self.branch(input_ids=input_ids, attention_mask=attention_mask)
        return SimpleNamespace(
            text_embeds=self.projection(output.pooler_output),
            last_hidden_state=output.last_hidden_state,
        )


def read_model(spec: EncoderSpec, dtype: torch.dtype) -> tuple[Any, Any, bool]:
    """(the package's model with the checkpoint's weights, its tokenizer, whether it fuses)."""
    if not spec.local:
        raise ConfigError(
            f"{spec.name} needs a checkpoint of LAION's.",
            f"hf download lukewys/laion_clap 630k-audioset-best.pt --local-dir .\n"
            f"then {spec.name}@630k-audioset-best.pt",
        )
    if dtype != torch.float32:
        raise ConfigError(f"{spec.name} runs in float32 only.", "Use --dtype float32.")
    path = Path(spec.weights)
    state = read_state(path)
    width = len(state[PATCHES]) if PATCHES in state else 0
    if width not in AUDIO_MODELS:
        raise ArtefactError(
            f"{path} is not a CLAP checkpoint of LAION's with an HTSAT audio tower.",
            f"Those lie in lukewys/laion_clap on the hub. It has {', '.join(list(state)[:3])}, …",
        )
    fusion = any(name.startswith(FUSION) for name in state)
    with torch.random.fork_rng(devices=[]):
        model, tokenizer = build(AUDIO_MODELS[width], fusion=fusion)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ArtefactError(
            f"The weights in {path} do not fit LAION's {AUDIO_MODELS[width]} with RoBERTa: "
            f"{' '.join(lines)[:400]}",
            "Is the file complete, and of laion-clap?",
        ) from error
    return model, tokenizer, fusion


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names in the model, read without running any code in it.

    Beside tensors the originals hold numpy's numbers and their dtypes, so these may be there too.
    """
    try:
        with torch.serialization.safe_globals(numpy_numbers()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zip each have their own
        lines = str(error).strip().splitlines()
        raise ArtefactError(
            f"{path} can't be read as a checkpoint: {lines[0] if lines else type(error).__name__}",
            "Only tensors and plain numbers are read; code in a checkpoint is not run.",
        ) from error
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else {}
    names = {name.removeprefix("module."): value for name, value in state.items()}
    names.pop(POSITIONS, None)
    return {name: value for name, value in names.items() if isinstance(value, Tensor)}


def numpy_numbers() -> list[Any]:
    """What pickle needs to make one of numpy's numbers, under its names in numpy 1 and 2."""
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = [type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")]
    return [*((scalar, name) for name in names), np.dtype, *kinds]
