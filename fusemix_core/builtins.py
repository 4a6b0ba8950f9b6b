"""What fusemix itself brings, through the same hooks as any plugin."""

from __future__ import annotations

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import ComponentSpec

FUSEMIX_PAPER = "https://arxiv.org/abs/2312.10144"


@hookimpl
def fusemix_components() -> list[ComponentSpec]:
    return []
