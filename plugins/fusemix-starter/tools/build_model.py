"""Builds the model `starter:figures`: linear CCA on the training split of the bundled sample.

    python tools/build_model.py [--out FOLDER]

Weights are rounded to float16 (and kept as float32, as the model expects): a wheel compresses them
to half. Fails if that changes the recall on the test split by more than one query.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from fusemix_starter import sample_path

from fusemix_core import FusedModel, align
from fusemix_core.config import DataConfig
from fusemix_core.jobs.evaluate import evaluate

ENCODERS = {"image": "efficientnet-lite0", "text": "minilm"}
DATA = {"source": str(sample_path()), "split_column": "split"}
OUT = Path(__file__).parents[1] / "src" / "fusemix_starter" / "models" / "figures"
ABOUT = {
    "licence": "CC BY 4.0, https://creativecommons.org/licenses/by/4.0/",
    "attribution": "Fitted on 1,103 figures and descriptions from ten textbooks of OpenStax, Rice "
    "University, CC BY 4.0, changed: images made smaller, white space made single. © OpenStax; "
    "access for free at https://openstax.org. OpenStax does not endorse this model. Books, modules "
    "and the credits of third parties: `pairs.csv` of the sample (`fusemix sample`).",
}


def recall(model: FusedModel) -> float:
    """Mean R@1 in percent on the test split."""
    found = evaluate(model, DataConfig((DATA["source"],), split_column="split"), split="test")
    return found["retrieval"]["mean_r1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        model = align(ENCODERS, DATA, recipe="cca", out=Path(folder) / "run", device="cpu").model
    before = recall(model)
    with torch.no_grad():
        for adapter in model.adapters.values():
            for tensor in adapter.state_dict().values():
                tensor.copy_(tensor.half().float())
    after = recall(model)
    print(f"R@1 on test: {before:.2f}%, with rounded weights {after:.2f}%")
    if abs(after - before) > 0.4:
        raise SystemExit("Rounding changes the recall.")
    model.data = {**ABOUT, **{k: model.data[k] for k in ("pairs", "split")}}
    model.save_pretrained(out, name="starter:figures")


if __name__ == "__main__":
    main()
