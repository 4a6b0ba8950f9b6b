"""Indexes written to other engines. Importing this imports neither an engine nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusemix_core.errors import PluginError
from fusemix_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer

    from fusemix_stores.rows import query_vector
    from fusemix_stores.sending import send

__all__ = ["query_vector", "send"]


@hookimpl
def fusemix_commands(app: typer.Typer) -> None:
    """`fusemix index send`."""
    from fusemix_stores.command import send

    group = next((g.typer_instance for g in app.registered_groups if g.name == "index"), None)
    if group is None:
        raise PluginError("fusemix-stores needs a fusemix with the command `fusemix index`.")
    if all(command.name != "send" for command in group.registered_commands):
        group.command("send")(send)


def __getattr__(name: str) -> Any:
    """The functions, imported on first use."""
    if name == "query_vector":
        from fusemix_stores.rows import query_vector

        return query_vector
    if name == "send":
        from fusemix_stores.sending import send

        return send
    raise AttributeError(f"module 'fusemix_stores' has no attribute '{name}'")
