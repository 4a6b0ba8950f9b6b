"""`fusemix rank` with the default recipe on real sets, for docs/comparison.md.

python -m benchmarks.rank --data DATA          # DATA holds the real datasets

What a measure promises is held against the recall that the recipe reaches, on every pairing of
encoders and of the text encoder's layers. A set that has its result is left out: remove
results/rank/<set>.json to measure it again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS, machine
from fusemix_core import rank
from fusemix_core.cli.progress import ConsoleReporter

FOLDER = RESULTS / "rank"
RECIPE = "auto"
SETS: dict[str, dict[str, Any]] = {
    "chebi20": {
        "a": ["chemnet"],
        "data": {
            "source": "chebi20/validation.tsv",
            "columns": {"molecule": "SMILES", "text": "description"},
        },
    },
    "openstax": {
        "a": ["efficientnet-lite0", "efficientnet-lite2"],
        "data": {
            "source": "openstax/manifest.jsonl",
            "columns": {"text": "alt"},
            "group_by": "module",
        },
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    root = parser.parse_args().data
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, told in SETS.items():
        kept = FOLDER / f"{name}.json"
        if kept.exists():
            continue
        data = {**told["data"], "source": str(root / told["data"]["source"])}
        with ConsoleReporter() as reporter:
            found = rank(
                told["a"],
                ["minilm"],
                data,
                views={"text": "layers"},
                recipe=RECIPE,
                reporter=reporter,
            )
        content = {"machine": machine(), **found.as_dict()}
        kept.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
