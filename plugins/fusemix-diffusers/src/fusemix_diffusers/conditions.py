"""`condition:NAME[#PART][@FOLDER]`: the text or image encoder of a pipeline as an encoder of its
own. Its latents are the conditions of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.specs import EncoderSpec
from fusemix_diffusers import REQUIRES
from fusemix_diffusers.files import Name, part_configs

if TYPE_CHECKING:
    from torch import Tensor

_TEXTS = ("CLIPTextModel", "CLIPTextModelWithProjection")

PARTS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "text": ("text_encoder", "tokenizer", _TEXTS),
    "text2": ("text_encoder_2", "tokenizer_2", ("CLIPTextModelWithProjection",)),
    "prompt": ("text_encoder_2", "tokenizer_2", ("CLIPTextModelWithProjection",)),
    "image": ("image_encoder", "feature_extractor", ("CLIPVisionModelWithProjection",)),
}
"""Part → the component, what prepares its items, and which classes it may be of. `prompt` is both
text encoders of an SDXL together."""

_TARGETS = {"image": "ConditionImage", "prompt": "ConditionPrompt"}


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `condition:REPO[:REVISION][#PART]`, or of the pipeline in the folder `path`.

    The part is `text`, `text2` (the second text encoder), `prompt` (both, as SDXL takes them) or
    `image`; by default that of the modality, else the first that the pipeline has.

    Raises:
        ArtefactError: The files can't be had, or the encoder is of a class that is not allowed.
        ConfigError: The pipeline has no such part.
    """
    asked = Name.of(name, "condition")
    full = f"condition:{name}"
    folder, revision, found = part_configs(asked, full, path, {c for c, *_ in PARTS.values()})
    have = [part for part, (component, *_) in PARTS.items() if component in found]
    part = asked.part or (modality if modality in PARTS else "") or next(iter(have), "")
    if part not in have:
        raise ConfigError(
            f"{full}: the pipeline has no part '{part}' that encodes."
            if part
            else f"{full}: the pipeline has no text or image encoder of its own.",
            f"It has: {', '.join(have) or 'none'}. Example: condition:NAME#text@FOLDER",
        )
    component, _, kinds = PARTS[part]
    config = found[component]
    said = (config.get("architectures") or [None])[0]
    if said not in kinds or "auto_map" in config:
        raise ArtefactError(
            f"{full}: {component} is a {said}, or code in the repository.",
            f"Known: {', '.join(kinds)}.",
        )
    takes = "image" if part == "image" else "text"
    projected = str(said).endswith("WithProjection")
    return EncoderSpec(
        name=full,
        modality=modality or takes,
        target=f"fusemix_diffusers.encoders:{_TARGETS.get(part, 'ConditionText')}",
        takes=takes,
        dim=config.get("projection_dim" if projected else "hidden_size"),
        summary=f"the {component} of the pipeline {asked.repo}",
        views=("pooled", "tokens") if takes == "text" else ("pooled",),
        weights=str(folder) if path else asked.repo,
        revision=revision,
        max_tokens=config.get("max_position_embeddings") if takes == "text" else None,
        image_size=config.get("image_size") if takes == "image" else None,
        requires=REQUIRES,
        options={"part": part, "projected": projected},
    )


def token_ids(tokenizer: Any, texts: list[str]) -> Tensor:
    """int64 `[n, T]`: as pipelines prepare prompts, all padded to the full length."""
    found = tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return found.input_ids
