"""The packaged encoders, loaded once for all that a test runs in this process.

Each command is a process of its own to a user, and loads them.
"""

from fusemix_starter.image import PackagedTimmEncoder
from fusemix_starter.text import PackagedSentenceTransformerEncoder


def share_encoders(patch) -> None:
    """Load each of the starter's encoders once in this process, with its weights."""
    for cls in (PackagedTimmEncoder, PackagedSentenceTransformerEncoder):
        patch.setattr(cls, "load", _once(cls.load.__func__))


LOADED = {}


def _once(load):
    def kept(cls, spec, device, dtype):
        key = repr((spec, device, dtype))
        if key not in LOADED:
            LOADED[key] = load(cls, spec, device, dtype)
        return LOADED[key]

    return classmethod(kept)
