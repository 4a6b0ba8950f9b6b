"""The family `npy:`, latents that exist already. No torch."""

from __future__ import annotations

from pathlib import Path

from fusemix_core.data.headers import IDS, LATENTS, is_shape, shapes
from fusemix_core.errors import ConfigError
from fusemix_core.specs import EncoderSpec

SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet", ".pq")
VIEWS = {3: ("tokens", "pooled"), 4: ("grid", "pooled")}
"""The views of latents with more axes than a matrix: all of them, and their mean."""
EXAMPLE = "Example: -e image=npy:img.npy -e text=npy:txt.npy"


def resolve(name: str, modality: str | None = None, path: Path | None = None) -> EncoderSpec:
    """The spec of `npy:FILE` or `npy:FILE#ARRAY`, by default of the modality that the array or the
    file is named for. Raises `ConfigError` for no such file, and for an array that can't be latents
    by its shape."""
    file, _, array = name.partition("#")
    place = (path or Path(file)).expanduser()
    if place.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"npy:{name}: '{place.suffix}' is not a kind of file that holds latents.",
            f"Kinds: {', '.join(SUFFIXES)}. {EXAMPLE}",
        )
    if not place.is_file():
        raise ConfigError(f"npy:{name}: there is no file {place}.", EXAMPLE)
    _check_shape(name, place, array)
    ids = place.with_name(f"{place.stem}.ids.txt")
    return EncoderSpec(
        name=f"npy:{name}",
        modality=modality or array or place.stem,
        target="fusemix_core.encoders.matrix:MatrixEncoder",
        summary="latents in a file",
        views=views_of(place, array),
        takes="id",
        weights=str(place.resolve()),
        local=True,
        options={"array": array, "ids": _digest(ids)},
        items="" if place.suffix.lower() in (".parquet", ".pq") else str(place),
    )


def views_of(file: Path, array: str = "") -> tuple[str, ...]:
    """The views of the latents in a file, by the number of their axes."""
    found = shapes(file)
    named = [found.get(array, ())] if array else found.values()
    axes = max((len(shape) for shape in named), default=0)  # ids have one
    return VIEWS.get(axes, ("pooled",))


def _check_shape(name: str, file: Path, array: str) -> None:
    """Refuse a file whose only array, or the one named, has not the shape of latents."""
    found = {n: shape for n, shape in shapes(file).items() if n not in IDS}
    shape = found.get(array) if array else next(iter(found.values()), None)
    if shape is not None and (array or len(found) == 1) and not is_shape(shape):
        raise ConfigError(f"npy:{name}: contains an array of shape {shape}.", LATENTS)


def _digest(ids: Path) -> str:
    """Of the ids beside the matrix: with others it is another encoder."""
    from fusemix_core.digests import file_sha256

    return file_sha256(ids) if ids.exists() else ""
