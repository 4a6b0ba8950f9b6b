"""Items in a request: their forms in JSON, the limits on them, and their decoding.

Texts are strings; images and sounds are base64, with or without `data:…;base64,` before it. Nothing
is read from a path or fetched from an address.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fusemix_core.data.media import medium
from fusemix_core.data.media.base import Medium
from fusemix_core.saved.model import SavedModel
from fusemix_serve.replies import Refused
from fusemix_serve.settings import Limits

_DATA_URI = re.compile(r"data:[\w/+.\-]*(?:;[\w\-]+=[\w.\-]+)*;base64,", re.ASCII)
_IMAGES = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""The formats that are opened; Pillow knows many more that nobody sends in good faith."""
_DECODED = {"image": 8, "audio": 8}
"""Bytes held per pixel or sample while an item is decoded and encoded."""


@dataclass(frozen=True)
class Raw:
    """An item that has passed the limits on its size in the request, not yet decoded."""

    modality: str
    value: Any


@dataclass(frozen=True)
class Cost:
    """The cost of decoding some items: pixels, seconds, and bytes of memory."""

    pixels: int = 0
    seconds: float = 0.0
    memory: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.pixels + other.pixels,
            self.seconds + other.seconds,
            self.memory + other.memory,
        )


class Inputs:
    """Reads the items of requests for one model.

    Example:
        inputs = Inputs(model, Limits())
        raw = inputs.items(["a map", {"image": "data:image/png;base64,iVBO…"}])
        inputs.check(inputs.cost(raw))
        values = inputs.decode(raw)
    """

    def __init__(self, model: SavedModel, limits: Limits) -> None:
        self._limits = limits
        self._rates = {m: model.encoder(m).spec.sample_rate for m in model.modalities}
        self._media = {m: medium(info.takes) for m, info in model.encoders.items()}

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities whose items can be sent: all but those that encoders open as files."""
        return tuple(m for m, how in self._media.items() if not how.opened and how.name != "file")

    def takes(self, modality: str) -> str:
        """The name of the medium by which a modality's items arrive."""
        return self._media[modality].name

    def modality(self, name: str) -> str:
        """The modality that a request names: by its own name, or by its medium if only one takes
        it.

        Raises:
            Refused: there is none, or its items can't be sent.
        """
        fitting = [m for m, how in self._media.items() if how.name == name]
        found = name if name in self._media else fitting[0] if len(fitting) == 1 else None
        if found is None:
            raise Refused(
                400,
                f"The model has no modality '{name[:60]}'.",
                f"It has {', '.join(self._media)}.",
            )
        if found not in self.modalities:
            raise Refused(
                400,
                f"Items of {found} can't be sent to a server, as its encoder opens files itself.",
                f"These can: {', '.join(self.modalities)}.",
            )
        return found

    def items(self, given: Any, modality: str | None = None) -> list[Raw]:
        """The items of a request: one, or a list.

        Args:
            given: strings, or objects with one key, which names the modality.
            modality: that of the strings; None: the one that takes texts.

        Raises:
            Refused: something isn't an item, or there are too many, or one is too large.
        """
        listed = given if isinstance(given, list) else [given]
        if not listed:
            raise Refused(400, "There is no item.", "Send one, or a list of them.")
        if len(listed) > self._limits.texts:
            raise Refused(413, f"A request may have {self._limits.texts:,} items at most.")
        found = [self.item(one, modality) for one in listed]
        costly = sum(self._media[raw.modality].costly for raw in found)
        if costly > self._limits.media:
            raise Refused(
                413, f"A request may have {self._limits.media} images and sounds at most."
            )
        return found

    def item(self, given: Any, modality: str | None = None) -> Raw:
        """One item; see `items`."""
        if isinstance(given, str):
            return self._of(self.modality(modality or "text"), given)
        if isinstance(given, dict):
            parts = {k: v for k, v in given.items() if v is not None and k != "type"}
            if len(parts) == 1:
                ((name, value),) = parts.items()
                if name == "image_url":  # OpenAI's and Cohere's form of an image
                    value = value.get("url") if isinstance(value, dict) else value
                    return self._of(self.modality("image"), value)
                return self._of(self.modality(name), value)
        if isinstance(given, int) or (isinstance(given, list) and given):
            raise Refused(
                400,
                "The input has numbers of tokens, which mean nothing to this server.",
                "Send texts. In LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False).",
            )
        raise Refused(
            400,
            "An item must be a string, or an object with one key.",
            'Such as "a map", {"text": "a map"} or {"image": "data:image/png;base64,…"}.',
        )

    def _of(self, modality: str, value: Any) -> Raw:
        how = self._media[modality]
        if how.joined:
            if not isinstance(value, dict):
                raise Refused(400, f"An item of {modality} is an object, column → value.")
            return Raw(modality, value)
        if not isinstance(value, str):
            raise Refused(400, f"An item of {modality} must be a string.")
        if not how.inline:
            return Raw(modality, _bytes_of(value, modality))
        if len(value) > self._limits.characters:
            raise Refused(413, f"A text may have {self._limits.characters:,} characters at most.")
        return Raw(modality, value)

    # -- before decoding -------------------------------------------------------------------------

    def cost(self, items: Iterable[Raw]) -> Cost:
        """The cost of decoding the items, by their headers only.

        Raises:
            Refused: an item isn't of a known format.
        """
        return sum((self._cost(raw) for raw in items), Cost())

    def check(self, cost: Cost) -> None:
        """Raise `Refused` if a request would take more than the limits allow."""
        limits = self._limits
        if cost.pixels > limits.pixels:
            raise Refused(
                413,
                f"The images of a request may have {limits.pixels:,} pixels together.",
                "Send smaller ones; encoders see a few hundred pixels a side.",
            )
        if cost.seconds > limits.seconds:
            raise Refused(
                413, f"The sounds of a request may last {limits.seconds:g} seconds together."
            )

    def _cost(self, raw: Raw) -> Cost:
        how = self._media[raw.modality]
        if how.name == "image":
            width, height = image_size(raw.value)
            return Cost(pixels=width * height, memory=_DECODED["image"] * width * height)
        if how.name == "audio":
            frames, rate = sound_length(raw.value)
            seconds = max(frames / rate, frames / self._limits.samples)
            rate = max(rate, self._rates[raw.modality] or 0)
            samples = max(frames, int(seconds * rate))
            return Cost(seconds=seconds, memory=_DECODED["audio"] * samples)
        return Cost()

    # -- decoding --------------------------------------------------------------------------------

    def decode(self, items: Sequence[Raw]) -> list[Any]:
        """The items as `FusedModel.encode` takes them: never a path.

        Raises:
            DataError: an item can't be read.
        """
        return [self._decode(self._media[raw.modality], raw) for raw in items]

    def _decode(self, how: Medium, raw: Raw) -> Any:
        if how.inline:
            text = how.cell(raw.value)
            if not text:
                raise Refused(400, f"An item of {raw.modality} is empty.")
            return how.decode(text)
        return how.decode(raw.value, self._rates[raw.modality])


def image_size(data: bytes) -> tuple[int, int]:
    """(width, height) of an image in a file's bytes, by its header.

    Raises:
        Refused: it isn't a JPEG, PNG, WebP, GIF or BMP file.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_IMAGES) as image:
                return image.size
    except Image.DecompressionBombError as error:
        raise Refused(413, "The image has too many pixels.") from error
    except Exception as error:  # Pillow's plugins raise whatever damaged files make them
        raise Refused(
            415, "This isn't an image that the server reads.", f"It reads {', '.join(_IMAGES)}."
        ) from error


def sound_length(data: bytes) -> tuple[int, int]:
    """(frames, sample rate) of a sound in a file's bytes, by its header.

    Raises:
        Refused: it isn't a WAV, FLAC, Ogg or MP3 file, or it doesn't say how long it is.
    """
    import soundfile

    try:
        found = soundfile.info(io.BytesIO(data))
        frames, rate, channels = found.frames, found.samplerate, found.channels
    except Exception as error:
        raise Refused(
            415, "This isn't a sound that the server reads.", "It reads WAV, FLAC, Ogg and MP3."
        ) from error
    if not 0 < frames < 1 << 40 or not 100 <= rate <= 1_000_000 or not 0 < channels <= 32:
        raise Refused(415, "The sound's header is damaged, or doesn't say how long it is.")
    return frames, rate


def _bytes_of(value: str, modality: str) -> bytes:
    """The bytes of a data URI, or of base64."""
    head = _DATA_URI.match(value)
    if head is None and re.match(r"(?i)[a-z][a-z0-9+.\-]*:", value[:20]):
        raise Refused(
            400,
            "This server fetches nothing from addresses.",
            f"Send the {modality} itself: data:{modality}/…;base64,…",
        )
    try:
        data = base64.b64decode(value[head.end() if head else 0 :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(
            400, f"The {modality} isn't base64.", f"Send data:{modality}/…;base64,…"
        ) from error
    if not data:
        raise Refused(400, f"The {modality} is empty.")
    return data


def only(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Refuse fields that aren't known, which would change nothing.

    Args:
        given: the object in a request.
        known: the names of its fields.
        what: the object is, such as "a query".

    Raises:
        Refused: it has others.
    """
    others = [name[:60] for name in given if name not in known]
    if others:
        raise Refused(
            400,
            f"There is no field '{others[0]}' in {what}.",
            f"Its fields are {', '.join(known)}.",
        )


def required(body: Mapping[str, Any], wanted: str) -> Any:
    """A field that a request must have. Raises `Refused` if it hasn't."""
    if body.get(wanted) is None:
        raise Refused(400, f"The request has no '{wanted}'.")
    return body[wanted]
