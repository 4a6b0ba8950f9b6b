"""A timm model as modules of sentence-transformers, by way of a folder in the hub's layout."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path

import torch
from timm.models import save_for_hf
from torch import nn

from fusemix_timm.views import TimmModel


def as_modules(model: TimmModel) -> list[nn.Module]:
    """The model without classifier, and the mean over its map, as sentence-transformers has them.

    transformers reads such folders by its own class for timm's models, with timm's preprocessing.
    """
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    with tempfile.TemporaryDirectory() as folder:
        plain = copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format)
        save_for_hf(plain, folder, safe_serialization=True)
        path = Path(folder) / "config.json"
        config = json.loads(path.read_text("utf-8"))
        # transformers gives the number of classes itself, and refuses a second one.
        config.get("model_args", {}).pop("num_classes", None)
        path.write_text(json.dumps(config), "utf-8")
        return [Transformer(folder), Pooling(model.num_features, pooling_mode="mean")]
