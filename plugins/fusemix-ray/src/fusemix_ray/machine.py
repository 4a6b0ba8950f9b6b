"""What a machine of the cluster is asked first; it imports nothing heavy, so it answers at once."""

from __future__ import annotations

import socket
import sys
from importlib.metadata import version
from pathlib import Path


def sees(marker: str) -> tuple[str, bool, str]:
    """(this machine's name, whether it sees the file `marker`, its Python and fusemix)."""
    python = ".".join(map(str, sys.version_info[:2]))
    return (
        socket.gethostname(),
        Path(marker).is_file(),
        f"Python {python}, fusemix {version('fusemix')}",
    )
