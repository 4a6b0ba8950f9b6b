"""Items as Python programs hold them: arrays, tensors, and what the `datasets` package gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusemix_core.errors import DataError, short

if TYPE_CHECKING:
    from PIL.Image import Image

_ADDRESS = re.compile(r"(https?|ftp|s3|gs|hf|az):/+", re.IGNORECASE)
_CHANNELS = (1, 3, 4)
_FORMS = "an image is uint8, or float from 0 to 1, [h, w] or [h, w, 3] (a tensor: [3, h, w])"


def unwrapped(value: Any) -> Any:
    """What a `{"bytes", "path"}`, a `{"array", "sampling_rate"}` or an audio decoder of `datasets`
    contains: bytes, a path, or (samples, rate). Anything else as it is."""
    if hasattr(value, "get_all_samples"):
        clip = value.get_all_samples()
        return clip.data, int(clip.sample_rate)
    if not isinstance(value, Mapping):
        return value
    if value.get("array") is not None and "sampling_rate" in value:
        return value["array"], int(value["sampling_rate"])
    if not value.keys() <= {"bytes", "path"}:
        return value
    return value.get("bytes") if value.get("bytes") is not None else value.get("path")


def check_no_address(value: str | Path) -> None:
    """Raise `DataError` for the address of a file elsewhere."""
    if _ADDRESS.match(str(value)):
        raise DataError(
            f"'{short(str(value))}' is a URL, and files are read on this machine only",
            "Download it and give its path, or its bytes.",
        )


def is_array(value: Any) -> bool:
    """Whether it is an array of numpy, torch, or a package like them."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__array__")


def as_array(value: Any) -> np.ndarray:
    """An array, tensor or list of numbers as a numpy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
    return np.asarray(value)


def image_of(value: Any) -> Image:
    """The image that an array or a tensor contains.

    `[h, w]`, `[h, w, c]` or, as tensors have it, `[c, h, w]`, with 1, 3 or 4 channels; uint8, bool,
    whole numbers from 0 to 255, floats from 0 to 1, or `[h, w]` uint16.

    Raises:
        DataError: The shape or the range can be read in no way, or in two.
    """
    from PIL import Image

    tensor, values = hasattr(value, "detach"), as_array(value)
    values = _channels_last(values, tensor)
    if values.dtype == np.uint16 and values.ndim == 2:
        return Image.fromarray(values)
    return Image.fromarray(_bytes(values))


def _channels_last(values: np.ndarray, tensor: bool) -> np.ndarray:
    """`[h, w]` or `[h, w, 3 or 4]`."""
    shape = list(values.shape)
    if values.ndim == 4:
        raise DataError(
            f"an array of shape {shape} is several images", "Give each by itself: list(images)."
        )
    if values.ndim not in (2, 3) or 0 in shape:
        raise DataError(f"an array of shape {shape} is not an image", f"Here {_FORMS}.")
    if values.ndim == 2:
        return values
    first, last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
    if not first and not last:
        raise DataError(
            f"an array of shape {shape} has no axis of 1, 3 or 4 channels", f"Here {_FORMS}."
        )
    if first and last and shape[0] == shape[2] and shape[1] != shape[0]:
        raise DataError(
            f"an array of shape {shape} may be [h, w, c] or [c, h, w]", "Give a PIL image."
        )
    if first and (tensor or not last):
        values = np.moveaxis(values, 0, 2)
    return values[:, :, 0] if values.shape[2] == 1 else values


def _bytes(values: np.ndarray) -> np.ndarray:
    """The same values as uint8."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.dtype.kind not in "iuf":
        raise DataError(f"an array of {values.dtype} is not an image", f"Here {_FORMS}.")
    if not np.isfinite(values).all():
        raise DataError("the image contains values that are not finite")
    low, high = values.min(), values.max()
    most = 1 if values.dtype.kind == "f" else 255
    if low < 0 or high > most:
        raise DataError(
            f"the image has values from {low:g} to {high:g}",
            f"Here {_FORMS}. Undo a normalisation first: encoders do their own.",
        )
    scale = 255.0 if most == 1 else 1.0
    return np.rint(values.astype(np.float64) * scale).astype(np.uint8)
