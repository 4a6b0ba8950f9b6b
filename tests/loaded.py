"""The packaged encoders: loaded once for all that a test runs in this process, or with few layers.

Each command is a process of its own to a user, and loads them.
"""

import torch
from fusemix_starter.image import PackagedTimmEncoder
from fusemix_starter.text import PackagedSentenceTransformerEncoder

WHOLE, SHALLOW = {}, {}


def share_encoders(patch, shallow: bool = False) -> None:
    """Load each of the starter's encoders once in this process, with its weights, or with few of
    its layers (`shallow_encoders`)."""
    if shallow:
        shallow_encoders(patch)
    kept = SHALLOW if shallow else WHOLE
    for cls in (PackagedTimmEncoder, PackagedSentenceTransformerEncoder):
        patch.setattr(cls, "load", _once(cls.load.__func__, kept))


def shallow_encoders(patch) -> None:
    """The starter's encoders with few of their layers, one of each kind: files, preprocessing, both
    ends and views are those of the whole. To export sixteen blocks takes ten seconds of CPU."""
    patch.setattr(PackagedTimmEncoder, "load", _loaded(PackagedTimmEncoder, _cut_image))
    cls = PackagedSentenceTransformerEncoder
    patch.setattr(cls, "load", _loaded(cls, _cut_text))


def _cut_image(encoder) -> None:
    """Three blocks of sixteen, and a convolution to what the last gives."""
    blocks = encoder.model.blocks
    last = torch.nn.Conv2d(24, 320, 1, 8, bias=False)
    draw = torch.Generator().manual_seed(0)
    last.weight.data = torch.randn(last.weight.shape, generator=draw) / 24**0.5
    encoder.model.blocks = torch.nn.Sequential(*blocks[:2], last).eval()


def _cut_text(encoder) -> None:
    """Two layers of six."""
    bert = encoder.model[0].model.encoder
    bert.layer = bert.layer[:2]


def _loaded(cls, change):
    load = cls.load.__func__

    def changed(cls, spec, device, dtype):
        encoder = load(cls, spec, device, dtype)
        change(encoder)
        return encoder

    return classmethod(changed)


def _once(load, kept):
    def found(cls, spec, device, dtype):
        key = repr((spec, device, dtype))
        if key not in kept:
            kept[key] = load(cls, spec, device, dtype)
        return kept[key]

    return classmethod(found)
