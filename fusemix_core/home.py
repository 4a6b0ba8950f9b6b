"""Where fusemix keeps what it may use again: latents and remembered hashes."""

from __future__ import annotations

import os
from pathlib import Path

from fusemix_core.errors import ArtefactError


def home() -> Path:
    """`$FUSEMIX_HOME`, or `~/.cache/fusemix`. The folder need not exist yet.

    Raises `ArtefactError` if there is no home folder, as in a container run by an unknown user.
    """
    given = os.environ.get("FUSEMIX_HOME") or "~/.cache/fusemix"
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        raise ArtefactError(
            f"{given} can't be found: this user has no home folder.",
            "Set FUSEMIX_HOME to a folder for latents, such as FUSEMIX_HOME=/tmp/fusemix.",
        ) from error
