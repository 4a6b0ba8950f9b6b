"""What `hf:NAME` is: modality, width and views, as its JSON files tell. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from fusemix_core.errors import ConfigError
from fusemix_core.specs import EncoderSpec
from fusemix_hf import REQUIRES
from fusemix_hf.files import Files, parse, read_files

TARGETS = {
    "text": "fusemix_hf.text:TextEncoder",
    "image": "fusemix_hf.image:ImageEncoder",
    "audio": "fusemix_hf.audio:AudioEncoder",
}
_TOWERS = {"text": "text_config", "image": "vision_config", "audio": "audio_config"}
_OTHERS = {"video": "Frames of a video are read by fusemix-video."}
_WIDTHS = ("hidden_size", "d_model", "n_embd", "dim")

VITS = frozenset(
    ("beit", "clip_vision_model", "data2vec-vision", "deit", "dinov2", "dinov2_with_registers")
    + ("dinov3_vit", "ijepa", "siglip_vision_model", "vit", "vit_mae", "vit_msn")
)
"""Models whose last hidden states end with one token a patch, row by row."""
WAVES = frozenset(
    ("data2vec-audio", "hubert", "sew", "sew-d", "unispeech", "unispeech-sat", "wav2vec2")
    + ("wav2vec2-conformer", "wavlm")
)
"""Models of the waveform, whose last hidden states follow it in time."""
TIMED = WAVES | {"wav2vec2-bert", "whisper"}


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `hf:NAME`, NAME being a hub id, or `ID:REVISION` to pin a commit, tag or branch.

    `modality` picks the tower of a model that has several (CLIP). If the files say what the
    model reads, a modality that is none of theirs (`molecule`) may be any name for such items.
    Raises ArtefactError if the files can't be had, ConfigError if the modality is missing or
    another.
    """
    repo, _ = parse(name)
    files = read_files(name, path)
    reads = modalities(files)
    takes = _takes(name, reads, modality)
    tower = len(reads) > 1
    config = files.config
    limit = files.tokenizer.get("model_max_length")
    return EncoderSpec(
        name=f"hf:{name}",
        modality=modality or takes,
        target=TARGETS[takes],
        takes=takes,
        dim=_dim(files, takes, tower=tower),
        summary=f"the {f'{takes} tower of the ' if tower else ''}transformers model {repo}",
        views=("pooled",) if tower else _views(takes, config.get("model_type", "")),
        weights=repo,
        revision=files.revision,
        max_tokens=limit if takes == "text" and isinstance(limit, int) and limit < 10**6 else None,
        sample_rate=files.processor.get("sampling_rate", 16_000) if takes == "audio" else None,
        requires=REQUIRES,
        options={"tower": takes} if tower else {},
    )


def modalities(files: Files) -> tuple[str, ...]:
    """What the model reads, as its files tell: one of text, image, audio; several for a model of
    several towers; none if nothing tells."""
    towers = tuple(m for m, key in _TOWERS.items() if isinstance(files.config.get(key), dict))
    if len(towers) > 1:
        return towers
    if "sampling_rate" in files.processor:
        return ("audio",)
    if files.processor.keys() & {"image_processor_type", "image_mean", "do_resize"}:
        return ("image",)
    if files.tokenizer or "vocab_size" in files.config:
        return ("text",)
    return towers


def _takes(name: str, reads: tuple[str, ...], modality: str | None) -> str:
    if modality in reads:
        return modality
    if len(reads) > 1:
        said = "" if modality is None else f", and none for {modality}"
        lines = " or ".join(f"-e {m}=hf:{name}" for m in reads)
        raise ConfigError(f"hf:{name} has towers for {' and '.join(reads)}{said}.", f"Say: {lines}")
    if not reads and modality in TARGETS:
        return modality
    if not reads:
        raise ConfigError(
            f"Nothing in hf:{name} tells whether it reads text, images or audio.",
            f"Say what it is: -e image=hf:{name}",
        )
    if modality in TARGETS or modality in _OTHERS:
        hint = f"Write -e {reads[0]}=hf:{name}, or name another model."
        raise ConfigError(
            f"hf:{name} reads {reads[0]}, not {modality}.", _OTHERS.get(modality, hint)
        )
    return reads[0]


def _dim(files: Files, takes: str, *, tower: bool) -> int | None:
    """The width of the pooled latent if the config tells it."""
    config = files.config
    if tower:
        return config.get("projection_dim")
    widths = (config.get(key) for key in _WIDTHS)
    return next((w for w in widths if isinstance(w, int)), None)


def _views(takes: str, kind: str) -> tuple[str, ...]:
    if takes == "text":
        return ("pooled", "tokens", "layers")
    if takes == "image" and kind in VITS:
        return ("pooled", "tokens", "grid", "layers")
    if takes == "audio" and kind in TIMED:
        return ("pooled", "time", "layers")
    return ("pooled",)
