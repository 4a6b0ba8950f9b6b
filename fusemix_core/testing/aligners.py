"""`check_aligner`: whether an aligner keeps its contract, on toy pairs of which it has seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fusemix_core.adapters.identity import IdentityAdapter
from fusemix_core.adapters.linear import LinearAdapter
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.interfaces import Adapter, Aligner, FitContext, PairedLatents, ResidentLatents
from fusemix_core.registry import Registry, registry
from fusemix_core.saved.components import check_rebuilt, part_of
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
    seed,
)
from fusemix_core.testing.pairs import (
    DIMS3,
    ToyPairs,
    all_rows,
    embeddings_of,
    recall_at_1,
    toy_pairs,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect

DIM = 6

ALIGNER = Suite("aligner", least=10)
add_declaration_checks(ALIGNER)

Adapters = dict[str, Adapter]


def toy_recipe(name: str) -> Recipe:
    """A recipe of which an aligner takes what it needs: small parts, a hundred steps at most."""
    return Recipe(
        name="conformance",
        aligner=Part(name),
        dim=DIM,
        adapter=Part("linear"),
        mixup=Part("fusemix"),
        objective=Part("infonce"),
        training=Training(epochs=30, batch_size=32, lr=1e-2, warmup_steps=10),
        scorer=Part("cosine"),
    )


def check_aligner(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check an aligner: a registered name, a ComponentSpec or a class, built with `options`.

    recipe: what it is given to fit by (default: `toy_recipe`).
    """
    ALIGNER.expected(expected_failures)
    case = prepare(subject, options=options, recipe=recipe, registry=registry)
    return ALIGNER.run(case.name, case, expected_failures)


@dataclass
class AlignerCase(ComponentCase):
    """An aligner, and the recipe that it fits by."""

    recipe: Recipe | None = None

    def fit(
        self, pairs: ToyPairs, seed: int = 0, fixed: Mapping[str, Adapter] | None = None
    ) -> Adapters:
        """The adapters that a new aligner fits."""
        recipe = self.recipe or toy_recipe(self.name)
        context = FitContext(seed=seed, fixed=fixed or {})
        return self.make().fit(pairs.train, pairs.validation, recipe, context)

    @cached_property
    def fitted(self) -> Adapters:
        """Fitted to `toy_pairs`, for checks that change neither these nor their modes."""
        return self.fit(toy_pairs())

    @property
    def takes_fixed(self) -> bool:
        return "fixed" in getattr(self.target, "uses", ())


def prepare(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    registry: Registry = registry,
) -> AlignerCase:
    """The case that the checks look at; arguments as of `check_aligner`."""
    return AlignerCase(**vars(find("aligner", subject, options, registry)), recipe=recipe)


def expect_fitted(adapters: Adapters, pairs: PairedLatents) -> None:
    """Fail unless there is an adapter for each modality, all to one width and finite."""
    expect(
        isinstance(adapters, dict) and tuple(adapters) == pairs.modalities,
        f"fit gave adapters for {list(adapters)}, not {list(pairs.modalities)}",
    )
    widths = {}
    for modality, adapter in adapters.items():
        kind = type(adapter).__name__
        expect(isinstance(adapter, Adapter), f"{modality} got a {kind}, which is not an Adapter")
    for modality, rows in embeddings_of(adapters, pairs).items():
        expect(rows.isfinite().all(), f"embeddings of {modality} hold NaN or infinity")
        widths[modality] = rows.shape[1]
    expect(len(set(widths.values())) == 1, f"the widths of embeddings differ: {widths}")


def expect_same(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], what: str) -> None:
    for modality, rows in got.items():
        same = rows.shape == wanted[modality].shape and torch.allclose(
            rows, wanted[modality], rtol=1e-4, atol=1e-5
        )
        expect(same, f"{what}: other embeddings of {modality}")


@ALIGNER.check()
def is_an_aligner(case: AlignerCase) -> None:
    """It is an Aligner."""
    name = type(case.make()).__name__
    expect(isinstance(case.make(), Aligner), f"{name} is not a subclass of Aligner")


@ALIGNER.check()
def adapters(case: AlignerCase) -> None:
    """There is an adapter for each modality, in their order, all to one width."""
    expect_fitted(case.fitted, toy_pairs().test)


@ALIGNER.check()
def ready_to_use(case: AlignerCase) -> None:
    """Adapters are in eval mode on the CPU."""
    for modality, adapter in case.fitted.items():
        for name, module in adapter.named_modules():
            expect(not module.training, f"{modality}: '{name}' is in training mode")
        for name, tensor in adapter.state_dict().items():
            expect(tensor.device.type == "cpu", f"{modality}: {name} is on {tensor.device}")


@ALIGNER.check()
def aligns(case: AlignerCase) -> None:
    """On pairs that it has not seen, partners find each other far better than by chance."""
    pairs = toy_pairs()
    found = recall_at_1(embeddings_of(case.fitted, pairs.test))
    chance = 1 / len(pairs.test)
    expect(found > 10 * chance, f"R@1 is {found:.1%} on {len(pairs.test)} pairs")


@ALIGNER.check()
def three_modalities(case: AlignerCase) -> None:
    """Three modalities are aligned, though some rows lack one."""
    pairs = toy_pairs(DIMS3, missing=0.3)
    fitted = case.fit(pairs)
    expect_fitted(fitted, pairs.test)
    found = recall_at_1(embeddings_of(fitted, pairs.test))
    expect(found > 10 / len(pairs.test), f"R@1 is {found:.1%} on {len(pairs.test)} pairs")


@ALIGNER.check()
def seeded(case: AlignerCase) -> None:
    """Only the seed decides the result: not torch's global generator."""
    pairs = toy_pairs()
    first = embeddings_of(case.fit(pairs, seed=3), pairs.test)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        second = embeddings_of(case.fit(pairs, seed=3), pairs.test)
    expect_same(second, first, "fitted again with the same seed")


@ALIGNER.check()
def sees_only_its_pairs(case: AlignerCase) -> None:
    """Latents that neither training nor validation links point to have no part in the fit."""
    pairs, other = toy_pairs(), toy_pairs()
    for table in other.test.tables.values():
        assert isinstance(table, ResidentLatents)
        table.latents[-len(other.test) :] *= -50
    wanted = embeddings_of(case.fitted, pairs.validation)
    got = embeddings_of(case.fit(other), pairs.validation)
    expect_same(got, wanted, "with other latents in the test split")


@ALIGNER.check()
def uses_its_pairs(case: AlignerCase) -> None:
    """Which items are linked decides the result: wrongly linked pairs are not aligned as well."""
    pairs, wrong = toy_pairs(), toy_pairs()
    for part in (wrong.train, wrong.validation):
        part.links[:, 1] = part.links[:, 1].roll(7)
    found = recall_at_1(embeddings_of(case.fitted, pairs.test))
    without = recall_at_1(embeddings_of(case.fit(wrong), pairs.test))
    expect(found > without, f"R@1 is {found:.1%}; with wrong links {without:.1%}")


@ALIGNER.check()
def saveable(case: AlignerCase) -> None:
    """Its adapters can be saved by registered name and options, and rebuilt."""
    for modality, adapter in case.fitted.items():
        saved = part_of("adapter", adapter, None, case.registry)
        dim = embeddings_of({modality: adapter}, _only(modality))[modality].shape[1]
        saved = replace(saved, arguments=(DIMS3[modality], dim))
        check_rebuilt("adapter", adapter, saved, case.registry)


@ALIGNER.check(when=lambda case: case.takes_fixed)
def fixed_unchanged(case: AlignerCase) -> None:
    """Adapters of modalities that are fixed come back as they were, weights and mode."""
    given = fixed_adapters()
    kept = {m: embeddings_of({m: a}, _only(m))[m] for m, a in given.items()}
    fitted = case.fit(toy_pairs(DIMS3), fixed=given)
    for modality, wanted in kept.items():
        for adapter in (fitted[modality], given[modality]):
            rows = embeddings_of({modality: adapter}, _only(modality))[modality]
            same = torch.equal(rows, wanted) and not adapter.training
            expect(same, f"{modality} is fixed, and was changed")


@ALIGNER.check(when=lambda case: case.takes_fixed)
def fits_to_fixed(case: AlignerCase) -> None:
    """Others are fitted to the embeddings of modalities that are fixed, at their width."""
    for pairs, given in (
        (toy_pairs(), {"text": IdentityAdapter(DIMS3["text"], DIMS3["text"]).eval()}),
        (toy_pairs(DIMS3, missing=0.3), fixed_adapters()),
    ):
        fitted = case.fit(pairs, fixed=given)
        expect_fitted(fitted, pairs.test)
        found = recall_at_1(embeddings_of(fitted, pairs.test))
        expect(found > 10 / len(pairs.test), f"R@1 is {found:.1%} with {', '.join(given)} fixed")


def fixed_adapters() -> Adapters:
    """Those of two modalities, as if fitted before: texts as they are, off centre, and pictures
    regressed on them."""
    train = toy_pairs(DIMS3).train
    rows = train.batch(torch.arange(len(train))).latents
    maps = {
        "image": torch.linalg.lstsq(rows["image"], rows["text"]).solution.T,
        "text": torch.eye(DIMS3["text"]),
    }
    fixed: Adapters = {}
    for modality, weight in maps.items():
        with seed(0):
            adapter = LinearAdapter(weight.shape[1], weight.shape[0])
        state = {"out.weight": weight, "out.bias": torch.ones(len(weight))}
        adapter.load_state_dict(state)
        fixed[modality] = adapter.eval()
    return fixed


def _only(modality: str) -> PairedLatents:
    test = toy_pairs(DIMS3).test
    k = test.modalities.index(modality)
    return PairedLatents({modality: test.tables[modality]}, test.links[:, [k]])


@ALIGNER.check()
def input_unmodified(case: AlignerCase) -> None:
    """Latents and links stay as they were."""
    pairs, kept = toy_pairs(), toy_pairs()
    case.fit(pairs)
    same = torch.equal(pairs.train.links, kept.train.links) and all(
        torch.equal(all_rows(t), all_rows(kept.train.tables[m]))
        for m, t in pairs.train.tables.items()
    )
    expect(same, "it changed its input")


@ALIGNER.check()
def surroundings(case: AlignerCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    pairs = toy_pairs()
    expect_nothing_changed(lambda: case.fit(pairs))
