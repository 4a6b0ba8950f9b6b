"""`fusemix serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from fusemix_core.cli import options as o
from fusemix_core.cli.groups import grouped
from fusemix_core.errors import ConfigError

if TYPE_CHECKING:
    from fusemix_core.fused import FusedModel
    from fusemix_core.saved.model import SavedModel

STATE = "index.json"
"""The file that makes a folder an index."""

Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH…",
        show_default=False,
        help="An index to search, and runs or saved models of align or fuse.",
    ),
]
Host = Annotated[
    str, typer.Option(help="The address to listen on. Any but this machine's own needs --token.")
]
Token = Annotated[
    str | None,
    typer.Option(
        metavar="SECRET",
        envvar="FUSEMIX_TOKEN",
        show_default=False,
        show_envvar=False,
        help="Clients must send 'Authorization: Bearer SECRET'. [$FUSEMIX_TOKEN]",
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="NAME",
        show_default=False,
        help="A further name by which clients address the server, such as that of a proxy.",
    ),
]


@grouped
def serve(
    paths: Paths,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    token: Token = None,
    allow_host: AllowHost = None,
    max_body: Annotated[
        int, typer.Option(min=1, metavar="MB", help="The largest request that is read.")
    ] = 20,
    in_flight: Annotated[
        int, typer.Option(min=1, help="Requests that are answered at once; others get 429.")
    ] = 128,
    rerank: o.Rerank = None,
    encoder: o.ModelEncoders = None,
    device: o.Device = None,
) -> None:
    """Serve an index with a search page, and models to clients of OpenAI, Cohere and Jina.

    Open the address that is printed, or give it to a client. The server listens on this machine
    only, unless --host names another address.

    Examples:

        fusemix serve photos.index

        fusemix serve photos.index --rerank runs/photos-rerank

        fusemix serve runs/photos runs/prices --port 9000

        fusemix serve runs/photos --host 0.0.0.0 --token "$FUSEMIX_TOKEN"
    """
    from fusemix_serve.running import run
    from fusemix_serve.settings import Limits, Settings

    settings = Settings(
        host=host,
        port=port,
        token=token or "",
        hosts=tuple(name.lower() for name in allow_host or ()),
        in_flight=in_flight,
        limits=Limits(body=max_body << 20),
    )
    sources = o.key_values(encoder, "--encoder")
    indexes = [path for path in paths if (path / STATE).is_file()]
    if len(indexes) > 1:
        raise ConfigError("A server has one index.", "Start another one with --port 0.")
    served = _loaded(paths, device or "auto", sources)
    collection, name, reranking = None, "", None
    if rerank is not None and not indexes:
        raise ConfigError("--rerank needs an index.", f"Example: fusemix serve I --rerank {rerank}")
    if indexes:
        from fusemix_core.search import Collection

        name = _name_of(indexes[0], {})
        collection = Collection.open(indexes[0], cast("FusedModel", served.pop(name)))
        if rerank is not None:
            from fusemix_core.runs.candidates import Reranking, load_reranker

            reranking = Reranking(load_reranker(rerank, collection.model, sources))
    run(collection, served, settings, name, reranking)


def _name_of(path: Path, taken: dict[str, SavedModel]) -> str:
    """The name of a model: that of its run's folder."""
    parts = [part for part in Path(os.path.abspath(path)).parts if part != "model"]
    name = parts[-1] if parts else "model"
    if name in taken:
        raise ConfigError(
            f"Two models are named '{name}'.", "A model is named by its folder: rename one."
        )
    return name


def _loaded(paths: list[Path], device: str, given: dict[str, str]) -> dict[str, SavedModel]:
    """The models by name, each with those of the given encoders that it has a modality for."""
    from fusemix_core.runs.models import model_of
    from fusemix_core.saved.folder import locate, read_config
    from fusemix_core.saved.model import load

    found: dict[str, SavedModel] = {}
    for path in paths:
        name, folder = _name_of(path, found), model_of(path)  # an index has a model as a run has
        modalities = read_config(locate(folder, None)).encoders
        own = {m: encoder for m, encoder in given.items() if m in modalities}
        found[name] = load(folder, device=device, encoders=own)
    known = {m for model in found.values() for m in model.modalities}
    if unknown := sorted(set(given) - known):
        raise ConfigError(
            f"No served model has the modality '{unknown[0]}'.", f"They have {', '.join(known)}."
        )
    return found
