"""Training a re-ranker for a fused model, on the pairs of the model's own run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fusemix_core.config import from_dict, to_dict
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Encoder, FitContext
from fusemix_core.jobs.measured_data import SPLITTING, data_table, run_of
from fusemix_core.launch import launched
from fusemix_core.reports.rerank import report_rerank, sections_of, verdict
from fusemix_core.rerank_config import RerankConfig, with_settings
from fusemix_core.reranked import RerankModel
from fusemix_core.reranking.fitting import FittedReranker, best_of
from fusemix_core.reranking.measuring import measure
from fusemix_core.runs.begun import keep_data
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.encode_plan import encode_plan
from fusemix_core.runs.environment import environment
from fusemix_core.runs.folder import MetricsLog, RunFolder, default_out
from fusemix_core.runs.inputs import DataInput, EncoderInput, encoder_names
from fusemix_core.runs.inputs import data_table as as_table
from fusemix_core.runs.models import encode_for, load_model
from fusemix_core.runs.notices import Notices
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rerank_fit import fit_networks, splits_of
from fusemix_core.runs.reranking import RerankPlan, make_rerank_plan
from fusemix_core.saved.identity import identity
from fusemix_core.saved.schema import EncoderInfo
from fusemix_core.sections import Section


@dataclass
class RerankResult:
    """The outcome of `fusemix rerank`. `results` is the content of results.json; `sections` is what
    the report and the terminal show."""

    folder: RunFolder
    model: RerankModel
    results: dict[str, Any]
    sections: list[Section] = field(default_factory=list)


def rerank(
    model: FusedModel | str | Path,
    data: DataInput | None = None,
    *,
    network: str | Mapping[str, Any] = "auto",
    encoders: Mapping[str, EncoderInput] | None = None,
    views: Mapping[str, str] | None = None,
    between: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    reporter: Reporter | None = None,
    **more: Any,
) -> RerankResult:
    """Train a network that ranks the first results of a fused model anew; what `fusemix rerank`
    does, from Python.

    Args:
        model: A run, a folder, a hub id, or a loaded model.
        data: As in `align`; by default those of the model's own run, with its split.
        network: A registered re-ranker, or a table of a name and options. `auto` is whichever does
            best on validation.
        encoders: modality → the encoder that gives the tokens, in place of the model's own.
        views: modality → the view that has the tokens. By default one of several layers, if the
            encoder has any.
        between: The two modalities, by default the model's first.
        settings: Fields of `RerankSettings`, such as `{"training": {"epochs": 4}}`.
        out, resume, reporter: As in `align`.
        **more: `seed`, `device`, `store`, `private` and so on, as in `align`.

    Returns:
        The run's folder, re-ranker and results.

    Raises:
        FusemixError: For anything that the caller can mend.

    Example:

        done = rerank("runs/1", network="interaction")
        print(done.results["verdict"])
    """
    names, objects = encoder_names(encoders or {})
    given = model.name if isinstance(model, FusedModel) else os.fspath(model)
    part = {"name": network} if isinstance(network, str) else dict(network)
    values = {
        "model": given,
        "data": {} if data is None else as_table(data),
        "network": part,
        "encoders": names,
        "views": dict(views or {}),
        "between": list(between),
        "settings": dict(settings or {}),
        **more,
    }
    config = rerank_config(values)
    if not isinstance(model, FusedModel):
        model = model_of_run(config)
    plan = make_rerank_plan(config, model, notify=reporter.note if reporter else None)
    how: dict[str, Any] = {"resume": resume, "reporter": reporter, "objects": objects}
    return run_rerank(plan, model, out or default_out(), **how)


def rerank_config(values: Mapping[str, Any]) -> RerankConfig:
    """A checked config from the tables of a TOML file or of options. Data, split and seed that are
    not given are those of the model's run."""
    run = run_of(values["model"])
    given = values.get("data", {})
    table, own = data_table(values["model"], run, given)
    kept = run.get("data", {}) if own else {}
    splitting = (*SPLITTING, "group_by")
    if other := [k for k in splitting if kept and k in given and given[k] != kept.get(k)]:
        raise ConfigError(
            f"The model was fitted to these data with another {other[0]}: its training rows would "
            "get into the test.",
            "Leave out the options of the split; it is that of the run.",
        )
    seed = run.get("seed", 0) if own else 0
    splits = {"split_seed": seed} if own else {}
    how = {**splits, "data": table, "settings": with_settings(values.get("settings", {}))}
    return from_dict(RerankConfig, {"seed": seed, **values, **how})


def model_of_run(config: RerankConfig) -> FusedModel:
    """The fused model that a config names. An encoder that only the user may name, such as one in a
    Python file, is the one that is named for the tokens."""
    model = load_model(config.model, config.device)
    own = {
        m: name
        for m, name in config.encoders.items()
        if m in model.encoders and not model.encoders[m].registered
    }
    return load_model(config.model, config.device, own) if own else model


def run_rerank(
    plan: RerankPlan,
    model: FusedModel,
    out: str | Path,
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    objects: Mapping[str, Encoder] | None = None,
) -> RerankResult:
    """Carry out a plan in the folder `out`: encode, train, choose on validation, measure, save.

    Args:
        plan: what to do.
        model: the fused model that the plan was made for.
        out: the run's folder.
        resume: go on with the run that is there.
        reporter: gets the progress.
        objects: modality → loaded encoder, in place of the plan's own.
    """
    if launched().processes > 1:
        raise ConfigError("fusemix rerank runs in one process.", "Start it without torchrun.")
    reporter, folder = reporter or Reporter(), RunFolder(out)
    device = resolve_device(plan.config.device)
    folder.start(plan.config, resume)
    keep_data(folder, plan.dataset, plan.config.private)
    folder.write_json(folder.environment, environment())
    objects = {**_loaded(plan, model), **(objects or {})}
    reporter.stage("Encoding")
    own = encode_for(model, plan.dataset, reporter, plan.config.data.max_bad, plan.config.store)
    plan = replace(plan, dataset=own.dataset)
    how = {"dtypes": {}, "ragged": list(plan.specs), "stage": "Encoding tokens"}
    encoded = encode_plan(plan, device, folder, reporter, objects, **how)
    splits = splits_of(model, own, encoded)
    reporter.stage("Training")
    log = [MetricsLog(folder.metrics)] if len(plan.networks) == 1 else []
    common = FitContext(
        device, plan.config.seed, resume=resume, callbacks=[*log, reporter], latents=encoded.digest
    )
    fitted, seconds = fit_networks(
        plan,
        encoded,
        splits,
        lambda name: replace(common, checkpoints=folder.checkpoints / name),
    )
    reporter.stage("Measuring")
    chosen = fitted[best_of(fitted)]
    shown = "test" if len(splits["test"]) else "validation"
    top_k = plan.config.settings.top_k
    measured = measure(
        chosen.network, chosen.mix.weights, splits[shown], top_k, seed=plan.config.seed
    )
    results = _results(plan, encoded, fitted, seconds, chosen, measured, shown)
    made = _model(plan, model, encoded, chosen, results, objects)
    reporter.stage("Saving")
    made.save_pretrained(folder.model)
    sections = sections_of(results)
    report_rerank(folder, plan, encoded, sections, results)
    folder.write_json(folder.results, results)
    return RerankResult(folder, made, results, sections)


def _loaded(plan: RerankPlan, model: FusedModel) -> dict[str, Encoder]:
    """modality → encoder of the model that is loaded already and gives the tokens too."""
    own = {m: model.encoder(m) for m in plan.specs if m not in plan.config.encoders}
    return {m: lazy.given for m, lazy in own.items() if lazy.given is not None}


def _results(
    plan: RerankPlan,
    encoded: Encoded,
    fitted: Mapping[str, FittedReranker],
    seconds: Mapping[str, float],
    chosen: FittedReranker,
    measured: Mapping[str, Any],
    split: str,
) -> dict[str, Any]:
    """The content of results.json."""
    dataset = encoded.dataset
    return {
        "model": plan.config.model,
        "splits": {name: len(rows) for name, rows in dataset.splits.items()},
        "split": split,
        "rejected": len(dataset.rejected),
        **({"private": True} if plan.config.private else {}),
        **Notices.of(dataset, [*plan.warnings, *encoded.warnings]).as_dict(),
        "encoders": {m: {"name": s.name, "view": plan.views[m]} for m, s in plan.specs.items()},
        "network": to_dict(chosen.part),
        "weight": chosen.mix.alpha,
        "weights": dict(chosen.mix.weights),
        "candidates": {
            name: {
                "weight": one.mix.alpha,
                "before": one.mix.tried[0.0],
                "mrr": one.mix.score,
                "tried": {str(alpha): value for alpha, value in one.mix.tried.items()},
                "seconds": seconds[name],
                **_layer_weights(one),
            }
            for name, one in fitted.items()
        },
        "verdict": verdict(chosen.mix.alpha, measured, split),
        "measured": dict(measured),
    }


def _layer_weights(fitted: FittedReranker) -> dict[str, Any]:
    """How a network weighs the layers of encoders, if it has `layer_weights`."""
    say = getattr(fitted.network, "layer_weights", None)
    found: Mapping[str, list[Tensor]] = say() if callable(say) else {}
    shown = {m: [one.tolist() for one in stages] for m, stages in found.items() if stages}
    return {"layer_weights": shown} if shown else {}


def _model(
    plan: RerankPlan,
    fused: FusedModel,
    encoded: Encoded,
    chosen: FittedReranker,
    results: Mapping[str, Any],
    objects: Mapping[str, Encoder],
) -> RerankModel:
    """The re-ranker of the run, with its encoders ready to load."""
    encoders = {
        m: EncoderInfo.of(
            spec,
            modality=m,
            dim=chosen.network.inputs[m],
            fingerprint=encoded.extractions[m].fingerprint,
            view=plan.views[m],
            dtype=encoded.extractions[m].dtype,
        )
        for m, spec in plan.specs.items()
    }
    measured = results["measured"]
    metrics = {
        when: {k: measured[when][k] for k in ("mean_r1", "mean_r1_interval", "mean_recall")}
        for when in ("before", "after")
    }
    notices = Notices.of(encoded.dataset, [*plan.warnings, *encoded.warnings])
    return RerankModel(
        encoders,
        chosen.network,
        top_k=plan.config.settings.top_k,
        weights=chosen.mix.weights,
        fused=identity(fused, plan.config.between),
        part=chosen.part,
        sources={m: objects.get(m, spec) for m, spec in plan.specs.items()},
        recipe={"name": chosen.part.name, "config": to_dict(plan.config.settings)},
        data={
            "rows": results["splits"],
            "verdict": results["verdict"],
            **notices.without_folders(plan.config.data.files),
        },
        metrics=metrics,
        device=plan.config.device,
    )
