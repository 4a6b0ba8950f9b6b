"""Re-rankers side by side: each over the same fused model, tokens, split and choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fusemix_core.benchmark.hits import hits_of, queries_of
from fusemix_core.benchmark.latents import digest_of, rows_digest
from fusemix_core.benchmark.lines import add_line, key_of, read_lines, results_in, seed_list
from fusemix_core.benchmark.measuring import Cost
from fusemix_core.benchmark.rerank_page import REPORT, page
from fusemix_core.config import Part, RunConfig, from_dict, parse_part, to_dict
from fusemix_core.context import FitContext
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError, FusemixError
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Encoder
from fusemix_core.registry import registry
from fusemix_core.rerank_config import AUTO, RerankConfig, RerankSettings, with_settings
from fusemix_core.reranking.fitting import best_of
from fusemix_core.reranking.measuring import compared, summary
from fusemix_core.reranking.split import Split
from fusemix_core.runs.adapters import fit_adapters
from fusemix_core.runs.config import build_config
from fusemix_core.runs.embeddings import embed_split
from fusemix_core.runs.encode import Encoded
from fusemix_core.runs.encode_plan import encode_plan, token_modalities
from fusemix_core.runs.environment import environment
from fusemix_core.runs.fused import fused_model
from fusemix_core.runs.inputs import DataInput, EncoderInput, encoder_names, table_of
from fusemix_core.runs.measure import measured_rows
from fusemix_core.runs.plan import Plan, make_plan
from fusemix_core.runs.reporter import Reporter
from fusemix_core.runs.rerank_fit import fit_networks, splits_of
from fusemix_core.runs.reranking import (
    KIND,
    RerankPlan,
    networks_of,
    rerank_plan,
    resolve_tokens,
)
from fusemix_core.runs.rows import check_latents, training_rows
from fusemix_core.runs.scorers import BANK_MOST
from fusemix_core.specs import EncoderSpec

SHARED = ("device", "dtype", "store_dtype", "encode_batch", "backend", "decode_processes", "store")
"""The fields of a `RunConfig` that hold for the tokens too."""


@dataclass(frozen=True)
class Ranked:
    """A re-ranker as it is asked for: its networks by name, and how they are trained."""

    networks: Mapping[str, Part]
    settings: RerankSettings


def bench_rerankers(
    encoders: Mapping[str, EncoderInput],
    data: DataInput | None = None,
    *,
    rerankers: Sequence[str | Mapping[str, Any]] = (AUTO,),
    recipe: str | Mapping[str, Any] = "auto",
    tokens: Mapping[str, EncoderInput] | None = None,
    token_views: Mapping[str, str] | None = None,
    seeds: int | Sequence[int] = 3,
    out: str | Path = "bench",
    reporter: Reporter | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """Fit a recipe and, over it, each re-ranker as `rerank` does, seed by seed: `fusemix bench
    --rerank`.

    Args:
        encoders, data, recipe, **settings: as `align` takes them.
        rerankers: each a name, a name with options of the network and settings of `RerankSettings`
            (`"interaction negatives=hard training.epochs=4"`), or a table of `name` and `options`.
            `auto` is whichever does best on validation.
        tokens: modality → the encoder that gives the tokens, in place of the recipe's.
        token_views: modality → the view that has the tokens. By default as `rerank` chooses it.
        seeds: how many, or which. Each draws its own split, unless the data say theirs.
        out: gets `results.jsonl`, to which finished fits are added, and `report.md`.
        reporter: gets the progress.

    Returns:
        One line for each seed and re-ranker. `measured` has recall before and after and the gain,
        as in the results of `rerank`; `error` is why it can't be fitted.

    Raises:
        FusemixError: for anything that the caller can mend.

    Example:
        encoders = {"image": "efficientnet-lite0", "text": "minilm"}
        bench_rerankers(encoders, "pairs.csv", rerankers=["interaction", "cross manager=static"])
    """
    names, objects = encoder_names(encoders)
    of_tokens, own = encoder_names(tokens or {})
    table = table_of(data, objects, len(names))
    values = {"encoders": names, "data": table, "recipe": recipe, **settings}
    chosen = {"encoders": of_tokens, "views": dict(token_views or {})}
    kept = {m: one for m, one in objects.items() if m not in of_tokens}
    loaded = objects, {**kept, **own}
    return run_rerankers(values, rerankers, chosen, seeds, out, reporter=reporter, objects=loaded)


def run_rerankers(
    values: Mapping[str, Any],
    rerankers: Sequence[str | Mapping[str, Any]],
    tokens: Mapping[str, Any],
    seeds: int | Sequence[int],
    out: str | Path,
    *,
    reporter: Reporter | None = None,
    objects: tuple[Mapping[str, Encoder], Mapping[str, Encoder]] = ({}, {}),
) -> list[dict[str, Any]]:
    """`bench_rerankers` from the tables of a `RunConfig`, and the `encoders` and `views` of the
    tokens. `objects`: modality → loaded encoder, of the recipe and of the tokens."""
    reporter, numbers = reporter or Reporter(), seed_list(seeds)
    ranked = rerankers_named(rerankers)
    config, specs = build_config(dict(values))
    of_tokens = token_config(config, specs, tokens)
    path = results_in(out)
    done = {one["key"]: one for one in read_lines(path) if "error" not in one}
    lines = []
    for number, seed in enumerate(numbers, 1):
        plan = make_plan(replace(config, seed=seed), specs, tell=reporter.note)
        case = Case.of(plan, replace(of_tokens[0], seed=seed), of_tokens[1], reporter, objects)
        for label, one in ranked.items():
            line = described(case, label, one)
            if line["key"] not in done:
                reporter.stage(f"seed {number} of {len(numbers)}: {label}")
                line |= attempt(case, label, one) | {"environment": environment()}
                add_line(path, line)
                done[line["key"]] = line
            lines.append(done[line["key"]])
    (path.parent / REPORT).write_text("\n".join(page(lines)) + "\n", encoding="utf-8")
    return lines


def rerankers_named(given: Sequence[str | Mapping[str, Any]]) -> dict[str, Ranked]:
    """Label → re-ranker.

    Raises:
        ConfigError, UnknownNameError: one is not a re-ranker, has no such option, or two have one
            label.
    """
    found: dict[str, Ranked] = {}
    for one in given:
        part = parse_part(one) if isinstance(one, str) else Part(**one)
        label = " ".join([part.name, *(f"{k}={v}" for k, v in part.options.items())])
        if label in found:
            raise ConfigError(f"The re-ranker {label!r} is named twice.")
        found[label] = _ranked(part)
    if not found:
        raise ConfigError("No re-ranker is given.", "Example: --rerank interaction")
    return found


def _ranked(part: Part) -> Ranked:
    """A re-ranker whose options are those of its network and, if that has none of the name,
    settings of its training."""
    specs = [spec for _, spec in registry.all_components(KIND)]
    if part.name != AUTO:
        specs = [registry.component(KIND, part.name)]
    own = {option for spec in specs for option in spec.options}
    known = {field.name for field in fields(RerankSettings)}
    settings = {
        key: value
        for key, value in part.options.items()
        if key not in own and key.partition(".")[0] in known
    }
    options = {key: value for key, value in part.options.items() if key not in settings}
    networks = networks_of(Part(part.name, options))
    return Ranked(networks, from_dict(RerankSettings, with_settings({}, settings)))


def token_config(
    config: RunConfig, specs: Mapping[str, EncoderSpec], tokens: Mapping[str, Any]
) -> tuple[RerankConfig, dict[str, EncoderSpec]]:
    """The config of the tokens, whatever the re-ranker, and modality → the encoder of its tokens.

    Args:
        config, specs: of the recipe.
        tokens: its `encoders` and `views`, as the user gives them.
    """
    shared = {name: getattr(config, name) for name in SHARED}
    given = RerankConfig(config.recipe.name, config.data, **tokens, **shared)
    return resolve_tokens(given, {m: s.takes for m, s in specs.items()}, lambda m: specs[m])


@dataclass
class Case:
    """The pairs of one seed: latents, tokens and, made when first asked for, the fused model.

    Attributes:
        plan: of the recipe.
        own: the latents that the recipe is fitted to.
        tokens: the plan of the re-rankers, without their networks.
        encoded: the tokens, of the same items.
        reporter: gets the progress.
        objects: modality → loaded encoder of the recipe.
    """

    plan: Plan
    own: Encoded
    tokens: RerankPlan
    encoded: Encoded
    reporter: Reporter
    objects: Mapping[str, Encoder]

    @classmethod
    def of(
        cls,
        plan: Plan,
        config: RerankConfig,
        specs: Mapping[str, EncoderSpec],
        reporter: Reporter,
        objects: tuple[Mapping[str, Encoder], Mapping[str, Encoder]],
    ) -> Case:
        """Encode the pairs by the encoders of the recipe and by those of the tokens."""
        if not len(plan.dataset.splits["test"]):
            raise ConfigError("There is no test split.", "Set test_fraction above 0.")
        device = resolve_device(plan.config.device)
        own = encode_plan(
            plan, device, None, reporter, objects[0], dtypes={}, ragged=token_modalities(plan)
        )
        check_latents(own.dataset, own.tables)
        tokens = rerank_plan(config, specs, own.dataset, {})
        encoded = encode_plan(
            tokens, device, None, reporter, objects[1], dtypes={}, ragged=list(specs)
        )
        return cls(plan, own, tokens, encoded, reporter, objects[0])

    @property
    def context(self) -> FitContext:
        """The context of every fit."""
        config = self.plan.config
        return FitContext(resolve_device(config.device), config.seed, callbacks=[self.reporter])

    @cached_property
    def splits(self) -> dict[str, Split]:
        """The splits as re-rankers see them, with the scores of the fused model."""
        return splits_of(self.model(), self.own, self.encoded)

    def model(self) -> FusedModel:
        """The recipe, fitted to the training pairs as `align` does it."""
        recipe, own = self.plan.config.recipe, self.own
        self.reporter.stage(f"Fitting ({recipe.name})")
        context = replace(self.context, fixed=self.plan.base.fixed_adapters(own.tables))
        rows = training_rows(recipe, own.paired("train"), context, self.reporter)
        chosen = np.sort(own.dataset.splits["train"][rows.numpy()])
        fitted = replace(own, dataset=own.dataset.with_split("train", chosen))
        adapters = fit_adapters(recipe, fitted, context)
        bank = embed_split(adapters, fitted.paired("train"), context.device, most=BANK_MOST)
        validation = measured_rows(fitted, "validation", context.seed)
        held = embed_split(adapters, validation, context.device)
        scorer = self.plan.base.scorer(self.plan.config, bank, held)
        return fused_model(self.plan, fitted, adapters, scorer, self.objects)


def described(case: Case, label: str, ranked: Ranked) -> dict[str, Any]:
    """The facts that decide a fit, and its key."""
    plan, dataset = case.plan, case.encoded.dataset
    test = dataset.links[dataset.splits["test"]]
    facts = {
        "encoders": {m: spec.name for m, spec in plan.specs.items()},
        "views": plan.views,
        "tokens": {m: [s.name, case.tokens.views[m]] for m, s in case.tokens.specs.items()},
        "recipe": to_dict(plan.config.recipe),
        "seed": plan.config.seed,
        "reranker": label,
        "networks": {name: to_dict(part) for name, part in ranked.networks.items()},
        "settings": to_dict(ranked.settings),
        "latents": [case.own.digest, case.encoded.digest],
        "pairs": [rows_digest(one) for one in (case.own.dataset, dataset)],
        "test_items": digest_of([], [*(i.keys for i in dataset.items.values()), test]),
        "versions": {p.dist: p.version for p in registry.plugins},
    }
    return {"key": key_of(facts), **facts}


def attempt(case: Case, label: str, ranked: Ranked) -> dict[str, Any]:
    """The results of the fit, or its error."""
    splits = case.splits  # without a fused model nothing can be compared
    try:
        return fitted(case, splits, ranked)
    except Exception as error:  # whatever a plugin raises, the others are still to be compared
        message = error.message if isinstance(error, FusemixError) else f"{error!r}"
        case.reporter.note(f"{label} failed: {message}")
        return {"error": message}


def fitted(case: Case, splits: Mapping[str, Split], ranked: Ranked) -> dict[str, Any]:
    """One re-ranker, fitted, chosen on validation, and measured on test."""
    config = replace(case.tokens.config, settings=ranked.settings)
    plan = replace(case.tokens, config=config, networks=dict(ranked.networks))
    context = replace(case.context, latents=case.encoded.digest)
    with Cost() as cost:
        found, _ = fit_networks(plan, case.encoded, splits, lambda _: context)
    chosen = found[best_of(found)]
    top_k, test = ranked.settings.top_k, splits["test"]
    ways = compared(chosen.network, chosen.mix.weights, test, top_k)
    before, after = [way.before for way in ways], [way.after for way in ways]
    sizes = {m: len(table) for m, table in test.tokens.tables.items()}
    return {
        "network": to_dict(chosen.part),
        "weight": chosen.mix.alpha,
        "validation": {
            name: {str(alpha): round(value, 3) for alpha, value in one.mix.tried.items()}
            for name, one in found.items()
        },
        "parameters": sum(p.numel() for p in chosen.network.parameters()),
        **cost.facts(),
        "rows": {name: len(one) for name, one in splits.items()},
        "measured": summary(ways, chosen.network, test, top_k, seed=context.seed),
        "queries": queries_of(before, test.tokens.links.numpy(), sizes),
        "hits": {"before": hits_of(before), "after": hits_of(after)},
    }
