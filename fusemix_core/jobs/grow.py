"""A further modality for a saved predictor: what its run is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusemix_core.config import FuseConfig
from fusemix_core.errors import ConfigError
from fusemix_core.jobs.measured_data import run_of
from fusemix_core.jobs.predict import load_predictor
from fusemix_core.predictor import Predictor, stack_of
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.fusing import build_fuse_config
from fusemix_core.specs import EncoderSpec


def fuse_config(
    values: Mapping[str, Any],
) -> tuple[FuseConfig, dict[str, EncoderSpec], Predictor | None]:
    """`build_fuse_config`, and the predictor that gets a further modality if `extends` is given."""
    return growth(values) if values.get("extends") else (*build_fuse_config(values), None)


def growth(
    values: Mapping[str, Any],
) -> tuple[FuseConfig, dict[str, EncoderSpec], Predictor]:
    """The config of a run that adds a modality, its encoders, and the predictor.

    Args:
        values: tables of a `FuseConfig`, of which `extends` is the predictor's folder or hub id.
            Targets and columns that are not given are those of its run.

    Raises:
        ConfigError: the new modality is not one, or the predictor can't take any.
    """
    values = dict(values)
    predictor = load_predictor(values["extends"], values.get("device", "auto"))
    stack_of(predictor)
    former, own = predictor.encoders, dict(values.get("encoders", {}))
    new = [m for m in own if m not in former]
    if len(new) != 1:
        raise ConfigError(
            f"One modality is added at a time; {', '.join(new) or 'none'} is new.",
            f"The predictor has {', '.join(former)}. Example: -e audio=whisper-tiny",
        )
    if values.get("folds"):
        raise ConfigError("A further modality is measured on the test split.", "Leave out --folds.")
    run = run_of(values["extends"])
    values |= {
        "encoders": {m: own.get(m, former[m].name) for m in former} | {new[0]: own[new[0]]},
        "views": {m: info.view for m, info in former.items()} | dict(values.get("views", {})),
        "data": _data(run.get("data", {}), values.get("data", {})),
        "task": predictor.part("task").name,
        "fuser": "stack",
    }
    values.setdefault("targets", run.get("targets", ["target"]))
    config, specs = build_fuse_config(values)
    return config, specs | {m: predictor.encoder(m).spec for m in former}, predictor


def check_encoders(predictor: Predictor, encoded: Encoded) -> None:
    """Raise `ArtefactError` if latents are not by the predictor's own encoders."""
    for modality in predictor.encoders:
        done = encoded.extractions[modality]
        predictor.encoder(modality).check(done.fingerprint, done.digest)


def _data(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The data as given, with the columns, facts and groups of the predictor's own."""
    both = {m: {**before.get(m, {}), **given.get(m, {})} for m in ("columns", "facts")}
    group = {"group_by": before["group_by"]} if "group_by" in before else {}
    return {**group, **given, **both}
