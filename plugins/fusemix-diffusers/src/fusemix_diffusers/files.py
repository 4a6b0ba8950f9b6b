"""The folder of a pipeline, from a hub, a package or a disk: which classes and configs it names.
Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusemix_core.errors import ArtefactError, ConfigError
from fusemix_core.packaged import packaged_folder, packaged_weights
from fusemix_core.specs import EncoderSpec, GeneratorSpec
from fusemix_diffusers.allowed import ELSEWHERE, LIBRARIES, PIPELINES, Allowed

INDEX = "model_index.json"
GENERATOR = "generator.json"
"""The file that describes the embeddings that a model was trained on; optional."""

ADAPTER = "ip_adapter"
"""The folder inside a pipeline's folder that has an IP-Adapter's weights."""

_CONFIGS = ("config.json", "scheduler_config.json", "preprocessor_config.json")
_TEXTS = ("*.json", "*.txt", "*.model")
_PARTS = "*-?????-of-?????.safetensors"
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors", _PARTS)


@dataclass(frozen=True)
class Name:
    """`REPO[:REVISION][#PART]`: a hub id, a commit, tag or branch, and what of it is meant."""

    repo: str
    revision: str = ""
    part: str = ""

    @classmethod
    def of(cls, text: str, family: str) -> Name:
        """The name that follows the prefix `family:`."""
        rest, hash_, part = text.strip().partition("#")
        repo, colon, revision = rest.partition(":")
        if not repo or (colon and not revision) or (hash_ and not part):
            raise ConfigError(
                f"'{family}:{text}' names no pipeline.",
                f"Examples: {family}:stable-diffusion-v1-5/stable-diffusion-v1-5 or "
                f"{family}:mine@FOLDER",
            )
        return cls(repo, revision, part)


@dataclass(frozen=True)
class Files:
    """The contents of a pipeline's JSON files; all classes are on the allow-list.

    Attributes:
        pipeline: The pipeline's class.
        components: Component → its class. Those that are switched off are left out.
        configs: Component → its config; empty if it has none.
        generator: The contents of `generator.json`.
        revision: The commit, if the files are a hub's.
    """

    pipeline: str
    components: Mapping[str, str]
    configs: Mapping[str, Mapping[str, Any]]
    generator: Mapping[str, Any] = field(default_factory=dict)
    revision: str = ""

    @property
    def allowed(self) -> Allowed:
        """The components that the pipeline's class may have."""
        return PIPELINES[self.pipeline]

    def config(self, component: str, key: str) -> Any:
        """A setting of a component that must be there. Raises ArtefactError if it is not."""
        value = self.configs.get(component, {}).get(key)
        if value is None:
            raise ArtefactError(
                f"The pipeline's {component}/config.json is missing or has no '{key}'.",
                "Fetch or copy the folder again.",
            )
        return value


def read_folder(folder: Path, name: str) -> Files:
    """The contents of a pipeline's JSON files.

    Args:
        folder: With `model_index.json`, as diffusers' `save_pretrained` writes it.
        name: How messages call it.

    Raises:
        ArtefactError: A file is missing or is not JSON, or names a class that is not allowed.
    """
    if not (folder / INDEX).is_file():
        raise ArtefactError(
            f"{name}: {folder} contains no pipeline of diffusers: there is no {INDEX} in it.",
            "Give the folder that the pipeline's save_pretrained wrote.",
        )
    index = _read(folder / INDEX)
    pipeline, components = check_index(index, name)
    configs = {
        component: next(
            (_read(p) for file in _CONFIGS if (p := folder / component / file).is_file()), {}
        )
        for component in components
    }
    for component, config in configs.items():
        _check_config(config, components[component], f"{name}, {component}")
    own = folder / GENERATOR
    return Files(pipeline, components, configs, _read(own) if own.is_file() else {})


def check_index(index: Mapping[str, Any], name: str) -> tuple[str, dict[str, str]]:
    """The pipeline's class and component → class, by the contents of `model_index.json`.

    Raises:
        ArtefactError: It names a class, a component or a library that is not allowed.
    """
    pipeline = str(index.get("_class_name"))
    if pipeline not in PIPELINES:
        known = ", ".join(PIPELINES)
        raise ArtefactError(
            f"{name} is a {pipeline}, which can't be conditioned by an embedding here.",
            ELSEWHERE.get(pipeline, f"Pipelines that can: {known}."),
        )
    allowed, components = PIPELINES[pipeline].components, {}
    for component, value in index.items():
        if component.startswith("_") or not isinstance(value, list) or value == [None, None]:
            continue
        library, kind = value if len(value) == 2 else (None, None)
        if library not in LIBRARIES or kind not in allowed.get(component, ()):
            wanted = ", ".join(sorted(allowed.get(component, ()))) or "nothing"
            raise ArtefactError(
                f"{name}: {INDEX} wants {library}.{kind} as {component}, which is not loaded.",
                f"Allowed as {component}: {wanted}.",
            )
        components[component] = kind
    return pipeline, components


def _check_config(config: Mapping[str, Any], kind: str, where: str) -> None:
    """Raise ArtefactError for a config of another class, or one that names code."""
    said = config.get("_class_name", kind)
    if said != kind or "auto_map" in config:
        raise ArtefactError(
            f"{where}: the config is that of {'code in the repository' if said == kind else said}, "
            f"not of {kind}.",
            "No code of a repository is run.",
        )


def located(spec: GeneratorSpec | EncoderSpec) -> Path:
    """The folder on this disk, fetched from the hub if need be: JSON, texts and safetensors.

    Raises:
        ArtefactError: It can't be had.
    """
    path = Path(spec.weights).expanduser()
    if spec.local or path.is_absolute():
        return path
    if spec.sha256:
        return packaged_weights(spec)
    if not spec.revision:
        return packaged_folder(spec.weights)
    return fetched(spec.weights, spec.revision, spec.name)


def fetched(repo: str, revision: str, name: str, *, weights: bool = True) -> Path:
    """The folder of a hub's repository at a revision, with or without its weights."""
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        index = Path(hf_hub_download(repo, INDEX, revision=revision or None))
        _, components = check_index(_read(index), name)
        kinds = _TEXTS + (_WEIGHTS if weights else ())
        patterns = [GENERATOR, *(f"{part}/{kind}" for part in components for kind in kinds)]
        return Path(snapshot_download(repo, revision=index.parent.name, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise unavailable(name, error) from error


def part_configs(
    asked: Name, name: str, path: Path | None, wanted: set[str]
) -> tuple[Path, str, dict[str, Mapping[str, Any]]]:
    """The folder, the commit (of a hub's), and the configs of those wanted components that a
    pipeline of any class has, or that lie in its folder."""
    if path is not None:
        folder, revision = path.resolve(), ""
    else:
        from huggingface_hub import hf_hub_download, snapshot_download

        try:
            index = Path(hf_hub_download(asked.repo, INDEX, revision=asked.revision or None))
            revision = index.parent.name
            patterns = [f"{part}/config.json" for part in wanted]
            folder = Path(snapshot_download(asked.repo, revision=revision, allow_patterns=patterns))
        except (OSError, ValueError) as error:
            raise unavailable(name, error) from error
    files = {part: folder / part / "config.json" for part in wanted}
    return folder, revision, {k: _read(file) for k, file in files.items() if file.is_file()}


def unavailable(name: str, error: Exception) -> ArtefactError:
    """The error for files that the hub does not give."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    return ArtefactError(
        f"{name} can't be had: {said}",
        f"Check its name and the network, or give a copy on disk: {name}@FOLDER",
    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is not JSON: {error}", "Fetch or copy it again.") from error
    if not isinstance(value, dict):
        raise ArtefactError(f"{path} contains no JSON object.", "Fetch or copy it again.")
    return value
