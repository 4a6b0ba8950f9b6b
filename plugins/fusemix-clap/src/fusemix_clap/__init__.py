"""CLAP: sounds and the texts that describe them. Metadata only; imports neither torch,
transformers nor laion_clap."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec

REQUIRES = {"fusemix_hf": "fusemix-hf>=0.2", "transformers": "transformers>=5"}
LAION_REQUIRES = REQUIRES | {"laion_clap": "fusemix-clap[laion]"}
PAPER = "https://arxiv.org/abs/2211.06687"
SAMPLE_RATE = 48_000
MAX_TOKENS = 77
DIM = 512
TEXT_PARAMETERS = 125_302_016


def _audio(**facts: Any) -> EncoderSpec:
    return EncoderSpec(
        modality="audio",
        dim=DIM,
        normalised=True,
        sample_rate=SAMPLE_RATE,
        paper=PAPER,
        **facts,
    )


def _text(**facts: Any) -> EncoderSpec:
    return EncoderSpec(
        modality="text",
        views=("pooled", "tokens"),
        dim=DIM,
        normalised=True,
        max_tokens=MAX_TOKENS,
        parameters=TEXT_PARAMETERS,
        paper=PAPER,
        **facts,
    )


def _towers(
    name: str,
    revision: str,
    heard: str,
    parameters: int,
    *,
    weights: str = "",
    alias: str = "",
) -> tuple[EncoderSpec, EncoderSpec]:
    """The audio and the text tower of one model of LAION's on the hub."""
    common: dict[str, Any] = {
        "weights": f"laion/{weights or name}",
        "revision": revision,
        "licence": "Apache-2.0",
        "requires": REQUIRES,
        "options": {},
    }
    return (
        _audio(
            name=name,
            aliases=(alias,) if alias else (),
            target="fusemix_clap.audio:ClapAudioEncoder",
            summary=f"CLAP's audio tower, {heard}",
            parameters=parameters,
            **common,
        ),
        _text(
            name=f"{name}-text",
            aliases=(f"{alias}-text",) if alias else (),
            target="fusemix_clap.text:ClapTextEncoder",
            summary=f"CLAP's text tower, {heard}",
            **common,
        ),
    )


HUB = (
    *_towers(
        "clap-htsat-unfused",
        "8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
        "general sounds",
        28_190_872,
        alias="clap",
    ),
    *_towers(
        "clap-htsat-fused",
        "365dea6ef167def6676140ed93bbc43f84dabb28",
        "general sounds, with feature fusion for long clips",
        28_205_512,
    ),
    *_towers(
        "larger-clap-general",
        "ada0c23a36c4e8582805bb38fec3905903f18b41",
        "general sounds, music and speech, larger",
        68_611_864,
        weights="larger_clap_general",
    ),
    *_towers(
        "larger-clap-music",
        "a0b4534a14f58e20944452dff00a22a06ce629d1",
        "music, larger",
        68_611_864,
        weights="larger_clap_music",
    ),
    *_towers(
        "larger-clap-music-and-speech",
        "195c3a3e68faebb3e2088b9a79e79b43ddbda76b",
        "music and speech, larger",
        68_611_864,
        weights="larger_clap_music_and_speech",
    ),
)

LAION = (
    _audio(
        name="laion-clap",
        target="fusemix_clap.laion:LaionAudioEncoder",
        summary="audio tower of an original checkpoint of LAION's: laion-clap@FILE.pt",
        requires=LAION_REQUIRES,
        options={},
    ),
    _text(
        name="laion-clap-text",
        target="fusemix_clap.laion:LaionTextEncoder",
        summary="text tower of an original checkpoint of LAION's: laion-clap-text@FILE.pt",
        requires=LAION_REQUIRES,
        options={},
    ),
)


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec]:
    """Five models on the hub and any original checkpoint, both towers of each."""
    return [*HUB, *LAION]
