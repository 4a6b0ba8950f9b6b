"""HuBERT, wav2vec 2.0, WavLM and Whisper's encoders through transformers. Metadata only; imports
neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec

REQUIRES = {"fusemix_hf": "fusemix-hf>=0.2", "transformers": "transformers>=5"}
SAMPLE_RATE = 16_000
VIEWS = ("pooled", "time", "layers")

WAV2VEC2 = "https://arxiv.org/abs/2006.11477"
XLSR = "https://arxiv.org/abs/2006.13979"
XLS_R = "https://arxiv.org/abs/2111.09296"
HUBERT = "https://arxiv.org/abs/2106.07447"
WAVLM = "https://arxiv.org/abs/2110.13900"
WHISPER = "https://arxiv.org/abs/2212.04356"


def _speech(target: str, model: str, weights: str, **facts: Any) -> EncoderSpec:
    facts.setdefault("name", weights.partition("/")[2])
    return EncoderSpec(
        modality="audio",
        target=f"fusemix_hubert.{target}",
        weights=weights,
        views=VIEWS,
        sample_rate=SAMPLE_RATE,
        requires=REQUIRES,
        options={"model": model},
        **facts,
    )


def _waveform(model: str, weights: str, revision: str, **facts: Any) -> EncoderSpec:
    facts.setdefault("licence", "Apache-2.0")
    return _speech("waveform:WaveformEncoder", model, weights, revision=revision, **facts)


def _whisper(size: str, dim: int, parameters: int, revision: str, heard: str) -> EncoderSpec:
    # fusemix-starter has the tiny one, run by CTranslate2, under the shorter name.
    short = () if size.startswith("tiny") else (f"whisper-{size}",)
    return _speech(
        "whisper:WhisperEncoder",
        "whisper",
        f"openai/whisper-{size}",
        name=f"openai-whisper-{size}",
        aliases=short,
        dim=dim,
        summary=f"the encoder of Whisper {size}, {heard}",
        revision=revision,
        licence="Apache-2.0",
        parameters=parameters,
        paper=WHISPER,
    )


_ENGLISH = "English speech"
_ALL = "speech in about 100 languages"

PRESETS = (
    _waveform(
        "hubert",
        "facebook/hubert-base-ls960",
        "dba3bb02fda4248b6e082697eee756de8fe8aa8a",
        name="hubert-base",
        aliases=("hubert", "hubert-base-ls960"),
        dim=768,
        summary="HuBERT base, 960 h of English speech",
        parameters=94_371_712,
        paper=HUBERT,
    ),
    _waveform(
        "hubert",
        "facebook/hubert-large-ll60k",
        "ff022d095678a2995f3c49bab18a96a9e553f782",
        name="hubert-large",
        aliases=("hubert-large-ll60k",),
        dim=1024,
        summary="HuBERT large, 60,000 h of English speech",
        parameters=315_438_720,
        paper=HUBERT,
    ),
    _waveform(
        "hubert",
        "facebook/hubert-large-ls960-ft",
        "ece5fabbf034c1073acae96d5401b25be96709d8",
        dim=1024,
        summary="HuBERT large, fine-tuned to transcribe English speech",
        parameters=315_438_720,
        paper=HUBERT,
    ),
    _waveform(
        "wav2vec2",
        "facebook/wav2vec2-base",
        "0b5b8e868dd84f03fd87d01f9c4ff0f080fecfe8",
        dim=768,
        summary="wav2vec 2.0 base, 960 h of English speech",
        parameters=94_371_712,
        paper=WAV2VEC2,
    ),
    _waveform(
        "wav2vec2",
        "facebook/wav2vec2-base-960h",
        "22aad52d435eb6dbaf354bdad9b0da84ce7d6156",
        dim=768,
        summary="wav2vec 2.0 base, fine-tuned to transcribe English speech",
        parameters=94_371_712,
        paper=WAV2VEC2,
    ),
    _waveform(
        "wav2vec2",
        "facebook/wav2vec2-large",
        "312b2410566b698c7a649068d413b2067848bd75",
        dim=1024,
        summary="wav2vec 2.0 large, 960 h of English speech",
        parameters=315_428_992,
        paper=WAV2VEC2,
    ),
    _waveform(
        "wav2vec2",
        "facebook/wav2vec2-large-xlsr-53",
        "c3f9d884181a224a6ac87bf8885c84d1cff3384f",
        dim=1024,
        summary="XLSR-53, speech in 53 languages",
        parameters=315_438_720,
        paper=XLSR,
    ),
    _waveform(
        "wav2vec2",
        "facebook/wav2vec2-xls-r-300m",
        "1a640f32ac3e39899438a2931f9924c02f080a54",
        dim=1024,
        summary="XLS-R 300M, speech in 128 languages",
        parameters=315_438_720,
        paper=XLS_R,
    ),
    _waveform(
        "wav2vec2",
        "facebook/wav2vec2-xls-r-1b",
        "35eaea9a0ed0f97592277d79208e40ab8917d1e3",
        dim=1280,
        summary="XLS-R 1B, speech in 128 languages",
        parameters=962_497_408,
        paper=XLS_R,
    ),
    _waveform(
        "wavlm",
        "microsoft/wavlm-base",
        "efa81aae7ff777e464159e0f877d54eac5b84f81",
        dim=768,
        summary="WavLM base, 960 h of English speech",
        licence="CC-BY-SA-3.0",
        parameters=94_381_936,
        paper=WAVLM,
    ),
    _waveform(
        "wavlm",
        "microsoft/wavlm-base-plus",
        "4c66d4806a428f2e922ccfa1a962776e232d487b",
        dim=768,
        summary="WavLM base+, 94,000 h of English speech",
        licence="CC-BY-SA-3.0",
        parameters=94_381_936,
        paper=WAVLM,
    ),
    _waveform(
        "wavlm",
        "microsoft/wavlm-large",
        "c1423ed94bb01d80a3f5ce5bc39f6026a0f4828c",
        dim=1024,
        summary="WavLM large, 94,000 h of English speech",
        licence="CC-BY-SA-3.0",
        parameters=315_453_120,
        paper=WAVLM,
    ),
    _whisper("tiny", 384, 8_208_384, "169d4a4341b33bc18d8881c4b69c2e104e1cc0af", _ALL),
    _whisper("tiny.en", 384, 8_208_384, "87c7102498dcde7456f24cfd30239ca606ed9063", _ENGLISH),
    _whisper("base", 512, 20_590_592, "e37978b90ca9030d5170a5c07aadb050351a65bb", _ALL),
    _whisper("base.en", 512, 20_590_592, "911407f4214e0e1d82085af863093ec0b66f9cd6", _ENGLISH),
    _whisper("small", 768, 88_154_112, "973afd24965f72e36ca33b3055d56a652f456b4d", _ALL),
    _whisper("small.en", 768, 88_154_112, "e8727524f962ee844a7319d92be39ac1bd25655a", _ENGLISH),
    _whisper("medium", 1024, 307_216_384, "abdf7c39ab9d0397620ccaea8974cc764cd0953e", _ALL),
    _whisper("medium.en", 1024, 307_216_384, "2e98eb6279edf5095af0c8dedb36bdec0acd172b", _ENGLISH),
    _whisper("large-v3", 1280, 636_968_960, "06f233fe06e710322aca913c1bc4249a0d71fce1", _ALL),
    _whisper("large-v3-turbo", 1280, 636_968_960, "41f01f3fe87f28c78e2fbf8b568835947dd65ed9", _ALL),
)


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec]:
    """Twelve that read waveforms, ten of Whisper's."""
    return PRESETS
