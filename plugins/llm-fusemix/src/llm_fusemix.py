"""Models of fusemix as embedding models of LLM (https://llm.datasette.io).

Texts and files of a model's other modality get vectors in one space, so a collection of images can
be searched by words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import llm

from fusemix_core.errors import FusemixError

if TYPE_CHECKING:
    from fusemix_core.fused import FusedModel

REGISTERED = "fusemix.json"
"""In LLM's folder: name → the folder or hub id of a model, and encoders to load in place of those
that it names."""
BATCH = 64
_SOUNDS = (b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")


class Fused(llm.EmbeddingModel):
    """Embeddings of texts, and of the bytes of images or sounds, by one fused model."""

    supports_text = True
    supports_binary = True
    batch_size = BATCH

    def __init__(self, name: str, source: str, encoders: Mapping[str, str] | None = None) -> None:
        self.model_id = f"fusemix/{name}"
        self.source = source
        self.encoders = dict(encoders or {})
        self._model: FusedModel | None = None

    @property
    def model(self) -> FusedModel:
        """The model, loaded when it is first needed."""
        if self._model is None:
            from fusemix_core.runs.models import load_model

            self._model = load_model(self.source, encoders=self.encoders)
        return self._model

    def embed_batch(self, items: Iterable[str | bytes], **_: Any) -> Iterator[list[float]]:
        """One vector per item, in their order."""
        given = list(items)
        rows: dict[int, list[float]] = {}
        try:
            kinds = [modality_of(self.model, item) for item in given]
            for modality in dict.fromkeys(kinds):
                places = [i for i, kind in enumerate(kinds) if kind == modality]
                found = self.model.encode(modality, [given[i] for i in places])
                rows.update(zip(places, found.tolist(), strict=True))
        except FusemixError as error:
            raise llm.ModelError("\n".join(filter(None, (error.message, error.hint)))) from error
        return iter([rows[i] for i in range(len(given))])


def modality_of(model: FusedModel, item: str | bytes) -> str:
    """The modality of a text, or of the bytes of a file. Raises `llm.ModelError` if the model has
    none that fits."""
    takes = {m: info.takes for m, info in model.encoders.items()}
    if isinstance(item, str):
        fitting = [m for m, medium in takes.items() if medium == "text"]
        what = "texts"
    else:
        fitting = [m for m, medium in takes.items() if medium != "text"]
        if len(fitting) > 1:
            medium = "audio" if item.startswith(_SOUNDS) and item[8:12] != b"WEBP" else "image"
            fitting = [m for m in fitting if takes[m] == medium]
        what = "such files"
    if not fitting:
        raise llm.ModelError(f"The model takes no {what}; its modalities are {', '.join(takes)}.")
    return fitting[0]


def models() -> dict[str, Fused]:
    """By name: models of fusemix's plugins, runs in this folder and in ./runs, registered ones."""
    from fusemix_core.registry import registry

    found = {name: name for name in registry.all_models()}
    for folder in (Path("runs"), Path()):
        for config in sorted(folder.glob("*/model/config.json")):
            found[config.parents[1].as_posix()] = str(config.parents[1].absolute())
    own = {name: Fused(name, one["model"], one["encoders"]) for name, one in _registered().items()}
    return {name: Fused(name, source) for name, source in found.items()} | own


def _registered() -> dict[str, dict[str, Any]]:
    file = llm.user_dir() / REGISTERED
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


@llm.hookimpl
def register_embedding_models(register: Any) -> None:
    """Register every model as `fusemix/NAME`; a run in ./runs also without `runs/`."""
    found = models()
    for name, model in found.items():
        short = name.removeprefix("runs/")
        register(model, aliases=() if short in found else (f"fusemix/{short}",))


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    """`llm fusemix register` and `llm fusemix models`."""

    @cli.group()
    def fusemix() -> None:
        """Models of fusemix."""

    @fusemix.command()
    @click.argument("model")
    @click.option("--name", help="What to call it. [the name of its folder]")
    @click.option(
        "--encoder", multiple=True, metavar="MODALITY=NAME", help="As of `fusemix search`."
    )
    def register(model: str, name: str | None, encoder: tuple[str, ...]) -> None:
        """Make MODEL, a run's folder or a hub id, known in every folder."""
        from fusemix_core.cli.options import key_values

        if Path(model).is_dir():
            model = str(Path(model).resolve())
            name = name or Path(model).name
        elif model.count("/") != 1:
            raise click.ClickException(f"{model} is neither a folder nor a hub id.")
        try:
            one = {"model": model, "encoders": key_values(list(encoder), "--encoder")}
        except FusemixError as error:
            raise click.ClickException(f"{error.message}\n{error.hint}") from error
        file = llm.user_dir() / REGISTERED
        known = json.dumps(_registered() | {name or model: one}, indent=1, ensure_ascii=False)
        file.write_text(known + "\n", encoding="utf-8")
        click.echo(f"fusemix/{name or model}")

    @fusemix.command(name="models")
    def list_models() -> None:
        """The models that LLM finds from here."""
        for model in models().values():
            click.echo(f"{model.model_id}  {model.source}")
