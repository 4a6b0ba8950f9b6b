"""The family `npy:`, latents that exist already. No torch."""

from __future__ import annotations

from pathlib import Path

from fusemix_core.errors import ConfigError
from fusemix_core.specs import EncoderSpec

SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet", ".pq")
EXAMPLE = "Example: -e image=npy:img.npy -e text=npy:txt.npy"


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `npy:FILE` or `npy:FILE#ARRAY`, by default of the modality that the array or the
    file is named for. Raises `ConfigError` for no such file."""
    file, _, array = name.partition("#")
    place = (path or Path(file)).expanduser()
    if place.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"npy:{name}: '{place.suffix}' is not a kind of file that holds latents.",
            f"Kinds: {', '.join(SUFFIXES)}. {EXAMPLE}",
        )
    if not place.is_file():
        raise ConfigError(f"npy:{name}: there is no file {place}.", EXAMPLE)
    ids = place.with_name(f"{place.stem}.ids.txt")
    return EncoderSpec(
        name=f"npy:{name}",
        modality=modality or array or place.stem,
        target="fusemix_core.encoders.matrix:MatrixEncoder",
        summary="latents in a file",
        takes="id",
        weights=str(place.resolve()),
        local=True,
        options={"array": array, "ids": _digest(ids)},
        items="" if place.suffix.lower() in (".parquet", ".pq") else str(place),
    )


def _digest(ids: Path) -> str:
    """Of the ids beside the matrix: with others it is another encoder."""
    from fusemix_core.digests import file_sha256

    return file_sha256(ids) if ids.exists() else ""
