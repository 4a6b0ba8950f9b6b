"""Latents made on several machines at once, by Ray Data. Importing this imports neither ray nor
torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusemix_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer

    from fusemix_ray.driver import encode

__all__ = ["encode"]


@hookimpl
def fusemix_commands(app: typer.Typer) -> None:
    """`fusemix ray-encode`."""
    from fusemix_ray.command import ray_encode

    app.command("ray-encode", rich_help_panel="Prepare and keep")(ray_encode)
    app.command("ray-embed", hidden=True)(ray_encode)  # its earlier name


def __getattr__(name: str) -> Any:
    """`encode` is imported on first use; `embed` is its earlier name."""
    if name not in ("encode", "embed"):
        raise AttributeError(f"module 'fusemix_ray' has no attribute '{name}'")
    from fusemix_ray.driver import encode

    return encode
