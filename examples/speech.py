"""Speech for the examples: captions spoken by eSpeak NG, and Whisper on short clips.

Used by `speech_search.py` and `three_modalities.py`; not an example by itself.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import math
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from fusemix_starter import WHISPER_TINY
from fusemix_starter.speech import FRAME, SAMPLE_RATE, WhisperEncoder, Windows

from fusemix_core.data.media import Audio
from fusemix_core.home import home

SAMPLES = 8 * SAMPLE_RATE


class ShortSpeech(WhisperEncoder):
    """Whisper's encoder on the first eight seconds of a clip.

    Whisper reads windows of thirty seconds, however short the clip; of a few words most of that is
    silence. Windows of eight take a tenth of the time.
    """

    spec = replace(
        WHISPER_TINY,
        name="whisper-tiny-8s",
        aliases=(),
        target="speech:ShortSpeech",
        options={"seconds": 8},
    )

    def collate(self, items: Sequence[Audio]) -> Windows:
        if not items:
            return super().collate(items)
        clips = [self._samples(item)[:SAMPLES] for item in items]
        mel = self.features(
            clips,
            sampling_rate=SAMPLE_RATE,
            padding="max_length",
            max_length=SAMPLES,
            return_tensors="np",
        )["input_features"]
        frames = [max(1, math.ceil(len(clip) / FRAME)) for clip in clips]
        return Windows(mel.astype(np.float32), np.array(frames), np.arange(len(clips)), len(clips))

    def truncated(self, items: Sequence[Audio]) -> int:
        return sum(len(item.samples) > SAMPLES for item in items)


def speak(texts: Sequence[str]) -> list[Path]:
    """A WAV file of each text, in fusemix's home; what was spoken before is there already."""
    folder = home() / "examples" / "spoken"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{hashlib.sha256(t.encode()).hexdigest()[:16]}.wav" for t in texts]
    new = {path: text for path, text in zip(paths, texts, strict=True) if not path.exists()}
    if new:
        _speak_all(new)
    return paths


def _speak_all(texts: dict[Path, str]) -> None:
    if command := shutil.which("espeak-ng"):

        def run(entry: tuple[Path, str]) -> None:
            path, text = entry
            part = path.with_suffix(".part")
            subprocess.run([command, "-w", str(part), "--", text], check=True)
            part.replace(path)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(run, texts.items()))
    elif importlib.util.find_spec("espeakng_loader"):
        voice = _Library()
        for path, text in texts.items():
            part = path.with_suffix(".part")
            soundfile.write(part, voice.speak(text), voice.rate, "PCM_16", format="WAV")
            part.replace(path)
    else:
        raise SystemExit(
            "This example speaks captions with eSpeak NG, which is not installed. Either\n"
            "    pip install espeakng-loader\n"
            "    apt-get install espeak-ng      (brew install espeak-ng)"
        )


class _Library:
    """libespeak-ng as the package espeakng-loader brings it, by its C interface (speak_lib.h)."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        retrieval_synchronous = 2
        path = str(Path(espeakng_loader.get_data_path()).parent).encode()
        self.rate = self._library.espeak_Initialize(retrieval_synchronous, 0, path, 0)
        if self.rate <= 0:
            raise SystemExit(f"libespeak-ng found no voices in {path.decode()}.")
        self._samples: list[np.ndarray] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self._callback = kind(self._take)  # held, so that it outlives the library's use of it
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_SetVoiceByName(b"en")

    def _take(self, samples: object, count: int, _: object) -> int:
        if samples and count:
            self._samples.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def speak(self, text: str) -> np.ndarray:
        """int16 samples at `rate`."""
        self._samples.clear()
        data, utf8 = text.encode() + b"\0", 1
        self._library.espeak_Synth(data, len(data), 0, 0, 0, utf8, None, None)
        return np.concatenate(self._samples)
