"""`check_mixup`: whether a mixup keeps its contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fusemix_core.interfaces import Batch, Mixup, Padded, as_rows, as_tokens
from fusemix_core.mixup import sources_of
from fusemix_core.own import Own
from fusemix_core.registry import Registry, registry
from fusemix_core.testing.components import (
    ComponentCase,
    Subject,
    add_declaration_checks,
    expect_nothing_changed,
    find,
)
from fusemix_core.testing.report import Report
from fusemix_core.testing.suite import Suite, expect

MODALITIES = ("image", "text", "audio")
PROGRESS = (0.0, 0.5, 0.99)

MIXUP = Suite("mixup", least=9)
add_declaration_checks(MIXUP)


def check_mixup(
    subject: Subject,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    registry: Registry = registry,
) -> Report:
    """Check a mixup: a registered name, a ComponentSpec or a class, built with `options`."""
    MIXUP.expected(expected_failures)
    case = find("mixup", subject, options, registry)
    return MIXUP.run(case.name, case, expected_failures)


def batch_of(
    rows: int = 12, modalities: int = 2, *, missing: bool = False, dtype: torch.dtype | None = None
) -> Batch:
    """A batch as the engine makes it: latents of different widths, every id of its own.

    missing: every third row lacks a modality, in turn.
    """
    draw = torch.Generator().manual_seed(rows)
    links = torch.arange(rows * modalities).reshape(modalities, rows).T.clone()[:, None, :]
    if missing:
        for row in range(0, rows, 3):
            links[row, 0, (row // 3) % modalities] = -1
    latents: dict[str, Tensor | Padded] = {}
    for k, modality in enumerate(MODALITIES[:modalities]):
        values = torch.randn(rows, 8 + 4 * k, generator=draw).to(dtype or torch.float32)
        latents[modality] = values.masked_fill((links[:, 0, k] < 0)[:, None], 0)
    return Batch(latents, links)


def generator(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def all_batches() -> dict[str, Batch]:
    """Batches of two and three modalities, odd and small, complete and not."""
    return {
        "two modalities": batch_of(),
        "an odd number of rows": batch_of(13),
        "three modalities": batch_of(12, 3),
        "missing entries": batch_of(12, 2, missing=True),
        "missing entries of three": batch_of(13, 3, missing=True),
    }


def expect_equal(got: Batch, wanted: Batch, what: str) -> None:
    same = torch.equal(got.links, wanted.links) and list(got.latents) == list(wanted.latents)
    same = same and all(
        torch.equal(as_rows(x), as_rows(wanted.latents[m])) for m, x in got.latents.items()
    )
    expect(same, what)


@MIXUP.check()
def rows_per_pair(case: ComponentCase) -> None:
    """n rows become n // rows_per_pair rows, in every modality and in the links."""
    mixup = case.make()
    for what, batch in all_batches().items():
        mixed = mixup(batch, generator(), 0.0)
        wanted = len(batch.links) // mixup.rows_per_pair
        counts = {"links": len(mixed.links), **{m: len(x) for m, x in mixed.latents.items()}}
        wrong = {name: n for name, n in counts.items() if n != wanted}
        expect(not wrong, f"{what}: {wrong} instead of {wanted} of {len(batch.links)} rows")


@MIXUP.check()
def shapes(case: ComponentCase) -> None:
    """Modalities, their order, widths and dtype stay; links are int64 `[n, S, K]`."""
    for dtype in (torch.float32, torch.float64):
        batch = batch_of(12, 3, dtype=dtype)
        mixed = case.make()(batch, generator(), 0.0)
        expect(isinstance(mixed, Batch), f"it gave a {type(mixed).__name__}, not a Batch")
        expect(list(mixed.latents) == list(batch.latents), f"modalities: {list(mixed.latents)}")
        for modality, x in mixed.latents.items():
            width = as_rows(batch.latents[modality]).shape[1]
            expect(x.ndim == 2 and x.shape[1] == width, f"{modality} is {list(x.shape)}")
            expect(x.dtype == dtype, f"{modality} became {x.dtype} from {dtype}")
        links = mixed.links
        expect(links.dtype == torch.int64, f"links are {links.dtype}")
        expect(links.ndim == 3 and links.shape[2] == 3, f"links are {list(links.shape)}")


@MIXUP.check()
def finite(case: ComponentCase) -> None:
    """Mixed latents are finite all through training."""
    mixup = case.make()
    for what, batch in all_batches().items():
        for progress in PROGRESS:
            for modality, x in mixup(batch, generator(), progress).latents.items():
                expect(x.isfinite().all(), f"{what}, progress {progress}: NaN in {modality}")


@MIXUP.check()
def one_lambda_and_pairing(case: ComponentCase) -> None:
    """All modalities get the same lambda and the same pairing, where rows are mixed."""
    for number in range(5):
        batch = batch_of(12, 3)
        batch.latents = {m: as_rows(batch.latents["image"]).clone() for m in batch.latents}
        found = case.make()(batch, generator(number), 0.5)
        if found.links.shape[1] == batch.links.shape[1]:
            return  # noise is drawn for each modality
        mixed = found.latents
        for modality, x in mixed.items():
            expect(
                torch.allclose(x, mixed["image"], rtol=1e-4, atol=1e-5),
                f"{modality} was mixed otherwise than image, though both held the same latents",
            )


@MIXUP.check()
def links_are_rows_of_the_batch(case: ComponentCase) -> None:
    """Each source of a mixed row is one row of the batch, the same in all modalities."""
    for what, batch in all_batches().items():
        given = set(map(tuple, batch.links[:, 0].tolist()))
        for row in case.make()(batch, generator(), 0.0).links.tolist():
            for source in row:
                expect(
                    tuple(source) in given, f"{what}: {source} is not a row of the batch's links"
                )


@MIXUP.check()
def carries_facts(case: ComponentCase) -> None:
    """A mixed row has the facts of its sources, in the order of its links; unpaired items stay."""
    for what, batch in all_batches().items():
        rows = len(batch.links)
        batch.facts = {"number": torch.arange(rows)[:, None].float(), "box": batch.links.float()}
        batch.unpaired = {m: x[:3] for m, x in batch.latents.items()}
        mixed = case.make()(batch, generator(), 0.0)
        expect(mixed.facts.keys() == batch.facts.keys(), f"{what}: facts {list(mixed.facts)}")
        for name, values in mixed.facts.items():
            wanted = [*mixed.links.shape[:2], *batch.facts[name].shape[2:]]
            expect(list(values.shape) == wanted, f"{what}: {name} is {list(values.shape)}")
        expect(
            torch.equal(mixed.facts["box"], mixed.links.float()),
            f"{what}: facts are of other rows than the links",
        )
        own = batch.links[mixed.facts["number"].long(), 0]
        expect(torch.equal(own, mixed.links), f"{what}: facts are of other rows than the links")
        expect(mixed.unpaired is batch.unpaired, f"{what}: unpaired items are lost")


@MIXUP.check()
def missing_entries(case: ComponentCase) -> None:
    """A row mixed from one that lacks a modality has -1 and zeros there."""
    for what, batch in all_batches().items():
        mixed = case.make()(batch, generator(), 0.0)
        present = mixed.present()
        for k, (modality, x) in enumerate(mixed.latents.items()):
            expect(not x[~present[:, k]].any(), f"{what}: latents of a missing {modality}")
            expect(
                x[present[:, k]].any(dim=1).all(), f"{what}: no latents of a {modality} that is not"
            )


@MIXUP.check()
def own_rows(case: ComponentCase) -> None:
    """If it says `sources`, each process makes of its own rows what one process makes of all."""
    mixup = case.make()
    for what, batch in all_batches().items():
        batch = with_tokens(batch)
        sources = sources_of(mixup, batch.present_here())
        if sources is None:
            continue
        whole = mixup(batch, generator(), 0.5)
        for number in range(2):
            own = Own.of(sources, number, 2)
            latents = {m: x[own.rows] for m, x in batch.latents.items()}
            mixed = mixup(replace(batch, latents=latents, own=own), generator(), 0.5)
            share = own.share(len(whole.links))
            parts = mixed.part(share, {}), whole.part(share, {})
            rows, wanted = ({m: as_rows(x) for m, x in part.latents.items()} for part in parts)
            near = [torch.allclose(x, wanted[m], rtol=1e-5) for m, x in rows.items()]
            expect(all(near), f"{what}: process {number} of 2 makes other rows than one process")
            expect(torch.equal(mixed.links, whole.links), f"{what}: links of other rows")


@MIXUP.check()
def tokens(case: ComponentCase) -> None:
    """Padding stays padding, whatever its values; a mixed item has the tokens of all its
    sources."""
    for what, batch in all_batches().items():
        given, modality = with_tokens(batch), MODALITIES[1]
        found = case.make()(given, generator(1), 0.5)
        x = found.latents[modality]
        expect(isinstance(x, Padded), f"{what}: tokens became a {type(x).__name__}")
        lengths = dict(
            zip(
                batch.links[:, 0, 1].tolist(),
                as_tokens(given.latents[modality]).mask.sum(1),
                strict=True,
            )
        )
        most = [max(int(lengths[i]) for i in row) for row in found.links[:, :, 1].tolist()]
        count = torch.tensor(most).where(found.present()[:, 1], 0)
        wanted = torch.arange(x.values.shape[1]) < count[:, None]
        expect(torch.equal(x.mask, wanted), f"{what}: other tokens than those of the sources")
        expect(x.values[x.mask].isfinite().all(), f"{what}: NaN in a token")
        tokens = as_tokens(given.latents[modality])
        given.latents[modality] = Padded(tokens.filled(torch.nan), tokens.mask)
        spoilt = case.make()(given, generator(1), 0.5).latents[modality]
        expect(torch.equal(spoilt.filled(), x.filled()), f"{what}: padding has a part in tokens")


def with_tokens(batch: Batch) -> Batch:
    """The batch, of which the second modality has items of one token or more, the second of them
    zeros, and none if they are missing."""
    modality = MODALITIES[1]
    rows = as_rows(batch.latents[modality])
    values = torch.stack([rows * (1 - t) for t in range(5)], dim=1)  # the second is zero
    count = (1 + torch.arange(len(rows)) % 5).where(batch.present()[:, 1], 0)
    mask = torch.arange(5) < count[:, None]
    return replace(batch, latents={**batch.latents, modality: Padded(values, mask)})


@MIXUP.check()
def draws_from_its_generator(case: ComponentCase) -> None:
    """The same state of the generator gives the same batch, whatever came before."""
    mixup, batch = case.make(), batch_of()
    first = mixup(batch, generator(4), 0.5)
    mixup(batch, generator(5), 0.9)
    expect_equal(mixup(batch, generator(4), 0.5), first, "the second call differs")
    expect_equal(case.make()(batch, generator(4), 0.5), first, "another instance differs")


@MIXUP.check()
def surroundings(case: ComponentCase) -> None:
    """Global generators, torch's settings, environment and logging are as before."""
    expect_nothing_changed(lambda: case.make()(batch_of(), generator(), 0.5))


@MIXUP.check()
def input_unmodified(case: ComponentCase) -> None:
    """The batch that it is given stays as it was."""
    for what, batch in all_batches().items():
        kept = Batch({m: as_rows(x).clone() for m, x in batch.latents.items()}, batch.links.clone())
        case.make()(batch, generator(), 0.5)
        expect_equal(batch, kept, f"{what}: it changed its input")


@MIXUP.check()
def is_a_mixup(case: ComponentCase) -> None:
    """It is a Mixup, and takes one row or more of data for each row that it makes."""
    mixup = case.make()
    expect(isinstance(mixup, Mixup), f"{type(mixup).__name__} is not a subclass of Mixup")
    count = mixup.rows_per_pair
    expect(isinstance(count, int) and count >= 1, f"rows_per_pair is {count!r}")
