"""What a worker is told: plain data that travels to other machines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fusemix_core.latents.encoding import Encoding
from fusemix_core.specs import EncoderSpec
from fusemix_ray.table import NAME

_HUB = ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN")
_SECRET = ("KEY", "TOKEN")
_OBJECTS = ("AWS_", "GOOGLE_", "AZURE_")


@dataclass(frozen=True)
class Job:
    """One encoder's part of an extraction.

    file: the user's file that holds the encoder's class, or "". home: the folder of the latent
    store, which all machines share. cpus: threads a worker may use. secrets: variables of the
    environment that are not to be seen in Ray's logs. how, view, shard: arguments of `extract`.
    attempts: a folder in `home` that holds the `table` of the items, and counts how often each
    block of it was begun, `lives` the limit. takes: what the items are, as of `Items`.
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
    takes: str = ""
    attempts: str = ""
    lives: int = 0

    @property
    def table(self) -> str:
        """The path of the table of items."""
        return str(Path(self.attempts) / NAME)


def shared_environment(
    spec: EncoderSpec, home: str, *, objects: bool = False
) -> tuple[dict[str, str], dict[str, str]]:
    """(variables for Ray's runtime environment, secrets): what decides how an encoder is loaded,
    and with `objects` how an object store is reached.

    Ray shows a runtime environment in its logs and on its dashboard, so keys go another way.
    """
    names = {n for n in os.environ if n.startswith("FUSEMIX_")} | {*_HUB, *spec.environment}
    of_objects = {n for n in os.environ if n.startswith(_OBJECTS)} if objects else set()
    found = {n: os.environ[n] for n in sorted(names | of_objects) if n in os.environ}
    secrets = {
        n: v
        for n, v in found.items()
        if n in spec.environment or n in of_objects or any(s in n for s in _SECRET)
    }
    shown = {n: v for n, v in found.items() if n not in secrets}
    return {**shown, "FUSEMIX_HOME": home}, secrets
