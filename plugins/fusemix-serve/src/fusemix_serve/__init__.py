"""A server and a search page for models and indexes of fusemix. Importing this imports neither
starlette nor torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

if TYPE_CHECKING:
    import typer

    from fusemix_serve.app import create_app
    from fusemix_serve.settings import Limits, Settings

__all__ = ["Limits", "Settings", "create_app"]


@hookimpl
def fusemix_commands(app: typer.Typer) -> None:
    """`fusemix serve`."""
    from fusemix_serve.command import serve

    app.command("serve", rich_help_panel="Start")(serve)


@hookimpl
def fusemix_components() -> Iterable[ComponentSpec]:
    """The exporter `web`."""
    return [
        ComponentSpec(
            kind="exporter",
            name="web",
            target="fusemix_serve.web.exporter:WebExporter",
            summary="a page that searches an index in the browser, as static files",
            options={
                "dtype": "int16",
                "words": True,
                "weights": "float16",
                "media": False,
                "runtime": "",
                "name": "",
            },
            uses=("data",),
        )
    ]


def __getattr__(name: str) -> Any:
    """`create_app` and the settings are imported on first use."""
    if name == "create_app":
        from fusemix_serve.app import create_app

        return create_app
    if name in ("Limits", "Settings"):
        from fusemix_serve import settings

        return getattr(settings, name)
    raise AttributeError(f"module 'fusemix_serve' has no attribute '{name}'")
