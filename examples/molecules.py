"""Molecules and text in one space: a modality that fusemix itself knows nothing of.

ChemNet reads SMILES strings, MiniLM descriptions. Two hundred well-known molecules come with this
example; a TSV of your own with the columns molecule and text goes further.

    pip install ./plugins/fusemix-starter ./plugins/fusemix-chem
    python examples/molecules.py
    python examples/molecules.py --data mine.tsv "a steroid hormone" "an antibiotic"
"""

from __future__ import annotations

import argparse
from pathlib import Path
from textwrap import shorten

from sample import show_recall

import fusemix_core

QUERIES = ["an opioid alkaloid", "an amino acid", "an explosive", "a fatty acid with double bonds"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("queries", nargs="*", default=QUERIES)
    own = Path(__file__).parent / "molecules.tsv"
    parser.add_argument("--data", type=Path, default=own, help="columns molecule and text")
    args = parser.parse_args()

    result = fusemix_core.align(
        {"molecule": "chemnet", "text": "minilm"},
        {"source": str(args.data), "validation_fraction": 0.15, "test_fraction": 0.25},
    )
    show_recall(result.results["test"]["retrieval"]["directions"])

    # Search among the molecules that were tested, none of which the fit has seen.
    dataset, model = result.encoded.dataset, result.model
    molecule, text = (dataset.modalities.index(m) for m in ("molecule", "text"))
    test = dataset.links[dataset.splits["test"]]
    smiles = [dataset.items["molecule"].describe(i) for i in test[:, molecule]]
    texts = [dataset.items["text"].describe(i) for i in test[:, text]]
    gallery = model.encode("molecule", smiles)
    queries = model.encode("text", args.queries)
    scores = model.similarity(queries, gallery, "text", "molecule")
    for query, row in zip(args.queries, scores, strict=True):
        print(f"\n{query}")
        for best in row.topk(min(3, len(smiles))).indices.tolist():
            print(f"  {smiles[best]}  ({shorten(texts[best], 90)})")


if __name__ == "__main__":
    main()
