"""The checks of an encoder's fit. Names here are the names of the checks."""

from __future__ import annotations

import json
from dataclasses import replace

import torch

from fusemix_core.latents.fingerprint import plain
from fusemix_core.specs import EncoderSpec
from fusemix_core.testing.encoder_case import ENCODER, EncoderCase, rows_of
from fusemix_core.testing.suite import expect


def is_fitted(case: EncoderCase) -> bool:
    """Whether the encoder was fitted to its items by the kit."""
    return case.declared is not None and case.declared.unfitted


def unfitted(case: EncoderCase) -> EncoderSpec:
    """The spec from which the kit fitted the encoder."""
    assert case.declared is not None, "the kit did not fit the encoder"
    return case.declared


@ENCODER.check(when=lambda case: not case.spec.fitted)
def fit_changes_nothing(case: EncoderCase) -> None:
    """An encoder that isn't fitted is the same whatever items it is shown."""
    found = type(case.encoder).fit(case.spec, case.items)
    expect(found == case.spec, "`fit` gives another spec: declare `fitted` in the spec")


@ENCODER.check(when=is_fitted)
def fit_is_plain(case: EncoderCase) -> None:
    """A fitted encoder learns plain data, the same each time, and can list them."""
    encoder, spec = type(case.encoder), unfitted(case)
    found, again = encoder.fit(spec, case.items), encoder.fit(spec, case.items)
    expect(not found.unfitted, "after `fit`, options['learnt'] is None")
    expect(spec.unfitted, "`fit` changed the spec that it was given")
    text = json.dumps(plain(found.options), allow_nan=False)
    expect(text == json.dumps(plain(again.options)), "fitted again, it learns something else")
    lines = list(encoder.learnt(found))
    expect(all(isinstance(line, str) for line in lines), "`learnt` gives sentences")


@ENCODER.check(when=is_fitted)
def fit_is_kept(case: EncoderCase) -> None:
    """Loaded from its findings, written and read as JSON, it gives the same latents."""
    encoder = type(case.encoder)
    spec = encoder.fit(unfitted(case), case.items)
    options = json.loads(json.dumps(plain(spec.options)))
    one, other = (
        encoder.load(replace(spec, options=o), torch.device("cpu"), torch.float32)
        for o in (spec.options, options)
    )
    view = spec.views[0]
    wanted = rows_of(one.encode(one.collate(case.items), view))
    case.expect_near(rows_of(other.encode(other.collate(case.items), view)), wanted, "loaded again")


@ENCODER.check(when=is_fitted)
def fit_to_few(case: EncoderCase) -> None:
    """Fitted to some of the items, it encodes the others, and those at the edges of the medium."""
    encoder = type(case.encoder)
    spec = encoder.fit(unfitted(case), case.items[: max(2, len(case.items) // 2)])
    loaded = encoder.load(spec, torch.device("cpu"), torch.float32)
    items = [*case.items, *case.edges.values()]
    rows = rows_of(loaded.encode(loaded.collate(items), spec.views[0]))
    expect(len(rows) == len(items), f"{len(rows)} rows for {len(items)} items")
    for i, row in enumerate(rows):
        expect(row.isfinite().all(), f"item {i}, which it was not fitted to, has NaN or infinity")
        expect(row.shape == rows[0].shape, f"item {i} is {list(row.shape)}")
