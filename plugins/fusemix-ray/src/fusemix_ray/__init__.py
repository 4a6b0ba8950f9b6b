"""Latents made on several machines at once, by Ray Data. Importing this imports neither ray nor
torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusemix_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer

    from fusemix_ray.flow import embed

__all__ = ["embed"]


@hookimpl
def fusemix_commands(app: typer.Typer) -> None:
    """`fusemix ray-embed`."""
    from fusemix_ray.command import ray_embed

    app.command("ray-embed")(ray_embed)


def __getattr__(name: str) -> Any:
    """`embed` is imported on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'fusemix_ray' has no attribute '{name}'")
    from fusemix_ray.flow import embed

    return embed
