"""Models of fusemix on the tasks of MTEB. Importing this imports neither mteb nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusemix_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer

    from fusemix_mteb.model import FusemixModel

__all__ = ["FusemixModel"]


@hookimpl
def fusemix_commands(app: typer.Typer) -> None:
    """`fusemix mteb`."""
    from fusemix_mteb.command import mteb

    app.command("mteb", rich_help_panel="Look and compare")(mteb)


def __getattr__(name: str) -> Any:
    """`FusemixModel` is imported on first use."""
    if name != "FusemixModel":
        raise AttributeError(f"module 'fusemix_mteb' has no attribute '{name}'")
    from fusemix_mteb.model import FusemixModel

    return FusemixModel
