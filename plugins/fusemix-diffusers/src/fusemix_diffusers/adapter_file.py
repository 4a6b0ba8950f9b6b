"""The file of an IP-Adapter, read without torch: its place, and the width that it takes."""

from __future__ import annotations

from pathlib import Path

from fusemix_core.errors import ArtefactError
from fusemix_diffusers.files import ADAPTER

_WEIGHT = "image_proj.proj.weight"


def adapter_file(folder: Path) -> Path:
    """The one safetensors file in the folder `ip_adapter` of a pipeline's folder."""
    found = sorted((folder / ADAPTER).glob("*.safetensors"))
    if len(found) != 1:
        raise ArtefactError(
            f"{folder / ADAPTER} contains {len(found)} safetensors files, not one IP-Adapter.",
            "Put the adapter's file there, such as ip-adapter_sd15.safetensors.",
        )
    return found[0]


def adapter_width(file: Path) -> int:
    """The width of the image embeddings that the adapter takes."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            if _WEIGHT in opened.keys():  # noqa: SIM118 - not a mapping
                return opened.get_slice(_WEIGHT).get_shape()[1]
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"{file} can't be read: {error}", "Copy it again.") from error
    raise ArtefactError(
        f"{file.name} takes no image vector: it has no tensor {_WEIGHT}.",
        "Adapters named 'plus' or 'full' take the tokens of an image, which an embedding does not "
        "have. Take a plain one, such as ip-adapter_sd15.safetensors.",
    )
