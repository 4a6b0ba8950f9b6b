"""Sounds that libsndfile doesn't read (m4a, aac, webm), by PyAV."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fusemix_core.data.foreign import what_is
from fusemix_core.data.media.extras import AV
from fusemix_core.errors import DataError


def needs_av(head: bytes) -> bool:
    """Whether a file begins as a container does that libsndfile doesn't read."""
    mpeg4, matroska = head[4:8] == b"ftyp", head.startswith(b"\x1a\x45\xdf\xa3")
    adts = len(head) > 6 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0  # ISO/IEC 13818-7, 6.2
    return mpeg4 or matroska or adts


def read_by_av(
    value: Path | bytes, head: bytes, most_channels: int, check_length: Callable[[int], None]
) -> tuple[np.ndarray, int]:
    """(mono float32 `[n]`, rate) of the first sound of a file.

    Args:
        head: The first bytes.
        most_channels: More are refused.
        check_length: Is given the samples so far, and raises if they are too many.

    Raises:
        DataError: If PyAV is missing, or the file can't be read.
    """
    where = value if isinstance(value, Path) else None
    AV.require((what_is(head) or ("an AAC sound", ""))[0])
    import av

    try:
        source = io.BytesIO(value) if isinstance(value, bytes) else str(value)
        with av.open(source, "r", metadata_errors="replace") as container:
            if not container.streams.audio:
                raise DataError("the file has no sound", path=where)
            stream = container.streams.audio[0]
            pieces, rate, length = [], int(stream.rate or 0), 0
            # In one plane: of more than 8 planes PyAV reads beyond the last.
            resampler = av.AudioResampler(format="flt")
            for frame in container.decode(stream):
                channels = frame.layout.nb_channels
                if not 1 <= channels <= most_channels:
                    raise DataError(f"the sound has {channels} channels", path=where)
                for piece in resampler.resample(frame):
                    values = piece.to_ndarray().reshape(-1, channels)
                    pieces.append(values.mean(axis=1, dtype=np.float32))
                    length += len(values)
                    rate = piece.sample_rate
                check_length(length)
    except DataError:
        raise
    except Exception as error:  # decoders meet any bytes and raise anything
        raise DataError(f"the sound can't be read: {error}", path=where) from error
    return (np.concatenate(pieces) if pieces else np.zeros(0, np.float32)), rate
