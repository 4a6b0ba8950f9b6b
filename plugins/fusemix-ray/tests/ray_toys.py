"""An encoder for the tests, named by this file, so that workers import it themselves."""

import os
import signal
from pathlib import Path

import torch

from fusemix_core.digests import content_key
from fusemix_core.interfaces import Encoder
from fusemix_core.specs import EncoderSpec


class Letters(Encoder):
    """A text's hash through a fixed matrix.

    A text with "bad" in it can't be collated. One with "deadly" kills the process that collates it,
    unless the file that it names last is there, which that process makes first; without a file it
    always does.
    """

    spec = EncoderSpec(
        name="letters", modality="text", target="ray_toys:Letters", dim=8, sha256="ab" * 32
    )

    def __init__(self, spec):
        self.spec = spec
        self.mix = torch.linspace(-1, 1, 16 * 8).sin().view(16, 8)

    @classmethod
    def load(cls, spec, device, dtype):
        with open(os.environ["FUSEMIX_LOADS"], "a") as file:
            file.write(f"{os.getpid()} {os.environ.get('FUSEMIX_TEST_KEY')}\n")
        return cls(spec)

    def collate(self, items):
        if any("bad" in item for item in items):
            raise ValueError("a bad text")
        for item in items:
            if "deadly" in item and not (mark := Path(item.split()[-1])).exists():
                if mark.is_absolute():
                    mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor([list(content_key(item.encode())) for item in items])

    def encode(self, batch, view="pooled"):
        # Row by row, so that how rows are batched can make no difference.
        return torch.stack([row @ self.mix for row in batch / 255])

    def truncated(self, items):
        return sum(len(item) > 40 for item in items)


class Digested(Letters):
    """Its fingerprint is known only to a loaded one."""

    spec = EncoderSpec(name="digested", modality="text", target="ray_toys:Digested", dim=8)

    @property
    def weights_digest(self):
        return "cd" * 32
