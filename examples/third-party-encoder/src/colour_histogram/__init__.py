"""The encoder `colour-histogram`. Metadata only: listing it imports neither torch nor numpy."""

from collections.abc import Iterable

from fusemix_core.hookspecs import hookimpl
from fusemix_core.specs import EncoderSpec

SPEC = EncoderSpec(
    name="colour-histogram",
    modality="image",
    target="colour_histogram.encoder:ColourHistogram",
    dim=512,
    summary="how much of each of 512 colours is in a picture",
    licence="none: no weights",
    normalised=True,
)


@hookimpl
def fusemix_encoders() -> Iterable[EncoderSpec]:
    return [SPEC]
