"""Where fusemix keeps what it may use again: latents and remembered hashes."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """`$FUSEMIX_HOME`, or `~/.cache/fusemix`. The folder need not exist yet."""
    return Path(os.environ.get("FUSEMIX_HOME") or "~/.cache/fusemix").expanduser()
