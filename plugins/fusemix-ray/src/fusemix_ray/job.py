"""What a worker is told: plain data that travels to other machines."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from fusemix_core.latents.encoding import Encoding
from fusemix_core.specs import EncoderSpec

_HUB = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN")
_SECRET = ("KEY", "TOKEN")


@dataclass(frozen=True)
class Job:
    """One encoder's part of an extraction.

    file: the user's file that holds the encoder's class, or "". home: the folder of the latent
    store, which all machines share. cpus: threads a worker may use. secrets: variables of the
    environment that are not to be seen in Ray's logs. how, view, shard: arguments of `extract`.
    attempts: a folder in `home` that counts how often each block was begun, `lives` the limit.
    """

    spec: EncoderSpec
    how: Encoding
    view: str
    shard: int
    fingerprint: str
    file: str
    home: str
    cpus: int
    secrets: Mapping[str, str] = field(repr=False)
    attempts: str = ""
    lives: int = 0


def shared_environment(spec: EncoderSpec, home: str) -> tuple[dict[str, str], dict[str, str]]:
    """(variables for Ray's runtime environment, secrets): what decides how an encoder is loaded.

    Ray shows a runtime environment in its logs and on its dashboard, so keys go another way.
    """
    names = {n for n in os.environ if n.startswith("FUSEMIX_")} | {*_HUB, *spec.environment}
    found = {n: os.environ[n] for n in sorted(names) if n in os.environ}
    secrets = {
        n: v for n, v in found.items() if n in spec.environment or any(s in n for s in _SECRET)
    }
    shown = {n: v for n, v in found.items() if n not in secrets}
    return {**shown, "FUSEMIX_HOME": home}, secrets


def sees(marker: str) -> tuple[str, bool, str]:
    """(this machine's name, whether it sees the file `marker`, its Python and fusemix)."""
    python = ".".join(map(str, sys.version_info[:2]))
    return (
        socket.gethostname(),
        Path(marker).is_file(),
        f"Python {python}, fusemix {version('fusemix')}",
    )
