"""Resolves `diffusers:NAME`: bridge, space, width and size, by its JSON files. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.specs import GeneratorSpec
from fusemix_diffusers import REQUIRES
from fusemix_diffusers.files import ADAPTER, GENERATOR, Files, Name, fetched, read_folder

_PRIORS = {
    "kandinsky-community/kandinsky-2-2-decoder": "kandinsky-community/kandinsky-2-2-prior",
}
"""Repositories whose image encoder is in another one."""
_SAYS = ("space", "view", "norm", "size", "licence", "paper", "steps", "guidance")
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "KandinskyV22Pipeline": {"steps": 50, "guidance": 4.0},
    "StableUnCLIPImg2ImgPipeline": {"steps": 25, "guidance": 7.5, "prompt": "", "noise_level": 0},
    "tokens": {"steps": 30, "guidance": 7.5},
    "ip": {"steps": 30, "guidance": 7.5, "prompt": "", "scale": 1.0},
    "guidance": {"steps": 50, "guidance": 7.5, "prompt": "", "strength": 100.0},
}


def resolve(name: str, makes: str | None = None, path: Path | None = None) -> GeneratorSpec:
    """The spec of `diffusers:REPO[:REVISION][#BRIDGE]`, or of the pipeline in the folder `path`.

    A bridge is how the pipeline is conditioned. Kandinsky 2.2 and unCLIP take an embedding
    (`image`). Stable Diffusion and SDXL take the tokens of a text (`tokens`, the default),
    an embedding through an IP-Adapter (`ip`), or are steered (`guidance`).

    Raises:
        ArtefactError: The files can't be had, or name a class that is not allowed.
        ConfigError: The pipeline has no such bridge, or does not make what is wanted.
    """
    asked = Name.of(name, "diffusers")
    full = f"diffusers:{name}"
    if makes not in (None, "image"):
        raise ConfigError(f"{full} makes images, not {makes}.", "Leave the modality out.")
    folder = path or fetched(asked.repo, asked.revision, full, weights=False)
    files = read_folder(folder, full)
    bridges = files.allowed.bridges
    bridge = asked.part or next(iter(bridges))
    if bridge not in bridges:
        raise ConfigError(
            f"A {files.pipeline} can't be conditioned by '{bridge}'.",
            f"Known: {', '.join(bridges)}. Example: {full.partition('#')[0]}#{next(iter(bridges))}",
        )
    own = _own(files, folder)
    defaults = _DEFAULTS.get(files.pipeline) or _DEFAULTS[bridge]
    options = {key: own.get(key, value) for key, value in defaults.items()}
    return GeneratorSpec(
        name=full,
        target=bridges[bridge],
        space=_space(asked, bridge, files, own, path),
        view="tokens" if bridge == "tokens" else own.get("view", "pooled"),
        condition=bridge if bridge in ("guidance", "tokens") else "pooled",
        norm=own.get("norm", "raw"),
        dim=_dim(files, bridge, folder, path),
        size=own.get("size", _size(files)),
        summary=f"the {files.pipeline} {asked.repo}",
        weights=str(path.resolve()) if path else asked.repo,
        revision="" if path else folder.name,
        licence=own.get("licence", ""),
        paper=own.get("paper", ""),
        requires=REQUIRES,
        options=options,
        local=path is not None,
    )


def _own(files: Files, folder: Path) -> Mapping[str, Any]:
    """The contents of `generator.json`. Raises ArtefactError for an unknown key."""
    if unknown := sorted(files.generator.keys() - set(_SAYS)):
        raise ArtefactError(
            f"{folder / GENERATOR} has the unknown key '{unknown[0]}'.",
            f"Known: {', '.join(_SAYS)}.",
        )
    return files.generator


def _space(
    asked: Name, bridge: str, files: Files, own: Mapping[str, Any], path: Path | None
) -> str:
    """The registered encoder in whose space the condition is."""
    if bridge == "guidance":
        return ""
    if "space" in own:
        return own["space"]
    at = f"@{path.resolve()}" if path else ""
    if bridge == "tokens":
        part = "prompt" if "text_encoder_2" in files.components else "text"
        return f"condition:{_without_part(asked)}#{part}{at}"
    if "image_encoder" in files.components or (path and (path / "image_encoder").is_dir()):
        return f"condition:{_without_part(asked)}#image{at}"
    if not path and asked.repo in _PRIORS:
        return f"condition:{_PRIORS[asked.repo]}#image"
    raise ArtefactError(
        f"Nothing in diffusers:{asked.repo} says which encoder's embeddings condition it.",
        f'Write a file {GENERATOR} into a copy of the folder: {{"space": "ENCODER", "norm": "raw"}}'
        "; ENCODER is a name from `fusemix encoders list`.",
    )


def _without_part(asked: Name) -> str:
    return asked.repo + (f":{asked.revision}" if asked.revision else "")


def _dim(files: Files, bridge: str, folder: Path, path: Path | None) -> int | None:
    """The width of the condition."""
    if bridge == "guidance":
        return None
    if bridge == "tokens":
        return files.config("unet", "cross_attention_dim")
    if bridge == "ip":
        return _adapter_dim(folder, path)
    if files.pipeline == "KandinskyV22Pipeline":
        return files.config("unet", "encoder_hid_dim")
    return files.config("image_encoder", "projection_dim")


def _adapter_dim(folder: Path, path: Path | None) -> int:
    from fusemix_diffusers.adapter_file import adapter_file, adapter_width

    if path is None:
        raise ConfigError(
            "An IP-Adapter needs a copy of the pipeline on disk.",
            f"Put the adapter's safetensors file into its folder {ADAPTER}/ and its image encoder "
            "into image_encoder/, then name it: diffusers:mine#ip@FOLDER",
        )
    return adapter_width(adapter_file(folder))


def _size(files: Files) -> int | None:
    """Pixels a side that the network was trained on."""
    sample = files.configs.get("unet", {}).get("sample_size")
    decoder = files.configs.get("movq") or files.configs.get("vae") or {}
    blocks = decoder.get("block_out_channels")
    return sample * 2 ** (len(blocks) - 1) if isinstance(sample, int) and blocks else None
