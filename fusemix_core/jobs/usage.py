"""What a run prints at its end: how to search with its model, by command and from Python."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.media import medium
from fusemix_core.fused import FusedModel


def usage(
    model: FusedModel,
    path: Path,
    dataset: PairedDataset,
    pair: tuple[str, str],
    encoders: Mapping[str, str],
) -> str:
    """The lines of Python that load a model and search one modality of a pair by the other.

    encoders: modality → the name of its encoder, as the user gave it.
    """
    named = _to_name(model, encoders)
    extra = f", encoders={json.dumps(named, ensure_ascii=False)}" if named else ""
    a, b = pair
    if medium(model.encoders[a].takes).inline:
        a, b = b, a
    return (
        "from fusemix_core import FusedModel\n"
        f'model = FusedModel.from_pretrained("{path}"{extra})\n'
        f'gallery = model.encode("{a}", {_example_items(model, a, dataset, 2)})\n'
        f'queries = model.encode("{b}", {_example_items(model, b, dataset, 1)})\n'
        f'print(model.similarity(queries, gallery, "{b}", "{a}"))'
    )


def search_command(
    model: FusedModel, run: Path, dataset: PairedDataset, encoders: Mapping[str, str]
) -> str:
    """The command that searches the data of a run: by a text if one can ask the model in words.

    encoders: modality → the name of its encoder, as the user gave it.
    """
    asked = [m for m, e in model.encoders.items() if medium(e.takes).language]
    source = asked[0] if asked else model.modalities[-1]
    example = json.loads(_example_items(model, source, dataset, 1))[0]
    words = ["fusemix", "search", str(run), example]
    takes = model.encoders[source].takes
    alone = sum(e.takes == takes for e in model.encoders.values()) == 1
    inferred = alone and (takes == "text" or not medium(takes).inline)
    words += [] if inferred else ["--from", source]
    for modality, name in _to_name(model, encoders).items():
        words += ["-e", f"{modality}={name}"]
    return shlex.join(words)


def _to_name(model: FusedModel, encoders: Mapping[str, str]) -> dict[str, str]:
    """modality → the encoder that no plugin registered by this name: it is only taken from the
    user, by the name that the user gave."""
    return {
        modality: encoders.get(modality, encoder.name)
        for modality, encoder in model.encoders.items()
        if not (encoder.dist and encoder.registered)
    }


def _example_items(model: FusedModel, modality: str, dataset: PairedDataset, count: int) -> str:
    """A list of items as Python, such as a user has; of what is not a text, picture or sound, some
    of the data's own."""
    how = medium(model.encoders[modality].takes)
    if how.language and modality == "text":
        return '["what you look for"]'
    if not how.inline and (examples := how.example(count)):
        return json.dumps(examples)
    items = dataset.items[modality]
    own = [items.describe(i) for i in range(min(count, len(items)))]
    return f"[{', '.join(json.dumps(item, ensure_ascii=False) for item in own)}]"
