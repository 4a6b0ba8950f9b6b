"""DICOM images (PS3.3, C.7.6.3 and C.11), by pydicom."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.data.media.extras import DICOM
from fusemix_core.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


def read_dicom(source: Path | io.BytesIO, most_pixels: int) -> Image:
    """The first frame of a DICOM file as a viewer shows it: rescaled, through its window or table,
    and with MONOCHROME1 turned to white on black.

    Raises:
        DataError: If pydicom is missing, or the file contains no image.
        DecompressionBombError: If it has more than `most_pixels`.
    """
    DICOM.require("a DICOM file")
    import pydicom
    from PIL import Image
    from pydicom.pixels import pixel_array

    data = pydicom.dcmread(source)
    if "PixelData" not in data:
        raise DataError("the DICOM file contains no image")
    if data.Rows * data.Columns > most_pixels:
        raise Image.DecompressionBombError(f"{data.Columns} x {data.Rows} pixels")
    stored = pixel_array(data, index=0)
    if stored.ndim == 2 and data.PhotometricInterpretation == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        stored = apply_color_lut(stored, data)
        return Image.fromarray(_bytes(stored, 8 * stored.dtype.itemsize))
    if stored.ndim == 3:
        return Image.fromarray(_bytes(stored[..., :3], int(data.BitsStored)))
    return Image.fromarray(np.rint(_grey(stored, data) * 255).astype(np.uint8))


def _bytes(values: np.ndarray, bits: int) -> np.ndarray:
    """uint8 of colours of that many bits."""
    return (values >> (bits - 8)).astype(np.uint8) if bits > 8 else values.astype(np.uint8)


def _grey(stored: np.ndarray, data: Any) -> np.ndarray:
    """float64 `[h, w]`, 0 (black) to 1 (white), of stored values."""
    from pydicom.pixels import apply_modality_lut, apply_voi

    values = apply_modality_lut(stored, data).astype(np.float64)
    padding = _padding(stored, data)
    if "VOILUTSequence" in data and len(data.VOILUTSequence):
        bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
        shown = apply_voi(values.astype(np.int64), data) / float((1 << bits) - 1)
    elif "WindowCenter" in data and "WindowWidth" in data:
        shown = _window(
            values,
            _first(data.WindowCenter),
            _first(data.WindowWidth),
            str(data.get("VOILUTFunction", "LINEAR")),
        )
    else:
        seen = values[~padding] if not padding.all() else values
        low, high = float(seen.min()), float(seen.max())
        shown = (values - low) / (high - low) if high > low else np.zeros_like(values)
    shown = np.clip(shown, 0.0, 1.0)
    if data.PhotometricInterpretation == "MONOCHROME1":
        shown = 1.0 - shown
    shown[padding] = 0.0
    return shown


def _window(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """Values through a window (PS3.3, C.11.2.1.2 and C.11.2.1.3), 0 to 1 inside it."""
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(-np.clip(4.0 * (values - centre) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return (values - centre) / width + 0.5
    if width <= 1:
        return (values > centre - 0.5).astype(np.float64)
    return (values - (centre - 0.5)) / (width - 1.0) + 0.5


def _first(value: Any) -> float:
    """The first of several windows."""
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)


def _padding(stored: np.ndarray, data: Any) -> np.ndarray:
    """Which pixels only fill the frame (PS3.3, C.7.5.1.1.2)."""
    if data.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, bool)
    ends = [int(data.PixelPaddingValue)]
    ends.append(int(data.get("PixelPaddingRangeLimit", ends[0])))
    return (stored >= min(ends)) & (stored <= max(ends))
