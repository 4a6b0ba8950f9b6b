"""The YAML at the top of a model card, which hubs read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusemix_core.saved.licences import OTHER, identifier, strictest
from fusemix_core.saved.schema import EncoderInfo, SavedConfig

_FILES = (".bin", ".ckpt", ".npz", ".onnx", ".pt", ".pth", ".safetensors")
_TASK = "retrieval"
"""The evaluator whose results a hub knows by the task `retrieval`."""
_NAMES = {
    "r1": "recall_at_1",
    "r5": "recall_at_5",
    "r10": "recall_at_10",
    "mean_r1": "recall_at_1",
    "mrr": "mean_reciprocal_rank",
    "map": "mean_average_precision",
}
"""Metrics whose names in `results.json` are short."""
_MOST = 60
"""Results in the list for a hub. All are in `results.json`."""


def front_matter(config: SavedConfig, name: str) -> str:
    """The block of a model that is loaded by `name`, with its fences."""
    encoders = list(config.encoders.values())
    measured = list(_measured(config.metrics))[:_MOST]
    fields: dict[str, Any] = {
        "library_name": "fusemix",
        "pipeline_tag": _pipeline(config, encoders),
        "license": licence_of(config),
    }
    if fields["license"] == OTHER:
        stated = [text for text in licences(config).values() if identifier(text) == OTHER]
        fields["license_name"] = re.sub(r"[^\w.]+", "-", stated[0].lower()).strip("-")
    if models := list(dict.fromkeys(e.weights for e in encoders if _on_hub(e.weights))):
        fields |= {"base_model": models, "base_model_relation": "adapter"}
    if datasets := datasets_of(config):
        fields["datasets"] = datasets
    fields["tags"] = ["fusemix", "multimodal", *_purposes(config), *(e.modality for e in encoders)]
    fields["encoder_licences"] = {e.modality: e.licence or "not stated" for e in encoders}
    if measured:
        fields["metrics"] = list(dict.fromkeys(metric for _, _, metric, *_ in measured))
        fields["model-index"] = [{"name": name, "results": _results(measured, config)}]
    return "\n".join(["---", *_yaml(fields), "---"])


def licences(config: SavedConfig) -> dict[str, str]:
    """`encoder of MODALITY` or `data` → the licence as it was stated, or nothing."""
    found = {f"encoder of {e.modality}": e.licence for e in config.encoders.values()}
    stated = config.data.get("licence") or ""
    every = [stated] if isinstance(stated, str) else [str(one) for one in stated]
    names = [f"data {i}" for i in range(1, len(every) + 1)] if len(every) > 1 else ["data"]
    return found | dict(zip(names, every or [""], strict=True))


def licence_of(config: SavedConfig) -> str:
    """The strictest licence of the encoders and the data, as a hub's identifier."""
    return strictest(licences(config).values())


def datasets_of(config: SavedConfig) -> list[str]:
    """The hub's names of the datasets, as they were recorded."""
    stated = config.data.get("datasets") or ()
    return [stated] if isinstance(stated, str) else [str(one) for one in stated]


def _on_hub(weights: str) -> bool:
    """Whether weights are named as a hub's repository, rather than as a file or an address."""
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", weights)
    return bool(named) and not weights.endswith(_FILES)


def _pipeline(config: SavedConfig, encoders: Sequence[EncoderInfo]) -> str:
    """A hub's name of the task. It has one for classes that are named by texts, of images only."""
    media = {e.takes for e in encoders}
    named = config.kind == "fused" and {"image", "text"} <= media
    return "zero-shot-image-classification" if named else "feature-extraction"


def _purposes(config: SavedConfig) -> list[str]:
    return ["cross-modal-retrieval"] if config.kind == "fused" else []


def _measured(
    table: Mapping[str, Any], at: tuple[str, ...] = ()
) -> Iterator[tuple[str, str, str, float, Sequence[float]]]:
    """(evaluator, path, metric, value, interval) of every number that has an interval."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _measured(value, (*at, str(key)))
            continue
        interval = table.get(f"{key}_interval")
        bounds = [one for one in interval if _is_number(one)] if isinstance(interval, list) else []
        if at and _is_number(value) and len(bounds) == 2:
            path = " ".join(part for part in at[1:] if part not in ("directions", "pairs"))
            yield at[0], path, _NAMES.get(str(key), str(key)), float(value), bounds


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _results(
    measured: Sequence[tuple[str, str, str, float, Sequence[float]]], config: SavedConfig
) -> list[dict[str, Any]]:
    """One entry for each evaluator, as the hub wants them."""
    own = datasets_of(config)
    split = config.data.get("split")
    data = {"type": own[0] if own else "own", "name": own[0] if own else "the model's own data"}
    if isinstance(split, str):
        data["split"] = split
    return [
        {
            "task": {"type": _TASK if one == _TASK else "other", "name": one},
            "dataset": data,
            "metrics": [
                {
                    "type": metric,
                    "name": " ".join(filter(None, (metric, path))),
                    "value": float(f"{value:.6g}"),
                    "args": {"interval": [float(f"{bound:.6g}") for bound in interval]},
                }
                for name, path, metric, value, interval in measured
                if name == one
            ],
        }
        for one in dict.fromkeys(name for name, *_ in measured)
    ]


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Lines of YAML. Scalars and lists of numbers are JSON, which YAML contains."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            name = key if re.fullmatch(r"[a-z][\w-]*", key) else json.dumps(key)
            if _nested(item):
                yield f"{indent}{name}:"
                yield from _yaml(item, indent + "  ")
            else:
                yield f"{indent}{name}: {json.dumps(item, ensure_ascii=False)}"
    else:
        for item in value:
            if not _nested(item):
                yield f"{indent}- {json.dumps(item, ensure_ascii=False)}"
                continue
            first, *rest = _yaml(item, indent + "  ")
            yield f"{indent}- {first.strip()}"
            yield from rest


def _nested(value: Any) -> bool:
    """Whether a value takes lines of its own: one that is not empty and not a list of numbers."""
    if isinstance(value, Mapping):
        return bool(value)
    return isinstance(value, list) and any(not _is_number(one) for one in value)
