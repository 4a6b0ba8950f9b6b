"""Each of several processes mixes its own rows, and gets what one process makes of all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fusemix_mixups.mixing import GeodesicMixup, PermutedMixup, PerSampleMixup

from fusemix_core.config import Training
from fusemix_core.engine import feed as feed_module
from fusemix_core.engine import windows
from fusemix_core.engine.feed import feed
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.state import mixed
from fusemix_core.errors import ContractError
from fusemix_core.interfaces import (
    Batch,
    Mixup,
    Padded,
    PairedLatents,
    ResidentLatents,
    Step,
    as_rows,
)
from fusemix_core.mixups.fusemix import FuseMixMixup
from fusemix_core.mixups.none import NoMixup
from fusemix_core.own import Own
from fusemix_core.paired import ResidentTokens

CPU = torch.device("cpu")
PROCESSES = 3
OWN = {
    "fusemix": FuseMixMixup,
    "none": NoMixup,
    "per-sample": PerSampleMixup,
    "geodesic": GeodesicMixup,
}


class OnDisk:
    """A table that is not in memory; counts the rows it is asked for."""

    def __init__(self, table):
        self.table, self.asked = table, 0

    shape = property(lambda self: self.table.shape)
    dim = property(lambda self: self.table.dim)

    def __len__(self):
        return len(self.table)

    def rows(self, index):
        self.asked += len(index)
        return self.table.rows(index)


def data(gaps, rows=62):
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 6, (rows,), generator=draw)
    tables = {
        "image": ResidentLatents(torch.randn(rows, 5, generator=draw)),
        "text": ResidentTokens(torch.randn(int(lengths.sum()), 4, generator=draw), lengths),
    }
    links = torch.stack([torch.randperm(rows, generator=draw) for _ in tables], dim=1)
    if gaps:
        links[::5, 0], links[2::7, 1] = -1, -1
        links = links[(links >= 0).any(dim=1)]
    return PairedLatents(tables, links).with_tokens(["text"])


@pytest.fixture
def as_process(monkeypatch):
    monkeypatch.setattr(feed_module, "WINDOW_BYTES", 0)

    def be(number, count=PROCESSES):
        for module in (feed_module, windows):
            monkeypatch.setattr(module, "processes", lambda: count)
        monkeypatch.setattr(windows, "rank", lambda: number)

    return be


def batches(pairs, mixup, blocks):
    """Two epochs of mixed batches."""
    plan = plan_steps(len(pairs), mixup.rows_per_pair, Training(epochs=2, batch_size=7))
    draws = torch.Generator().manual_seed(5)
    fed = feed(pairs, plan, 0, CPU, blocks=blocks, mixup=mixup)
    return [mixed(batch, mixup, draws, 0.5) for batch in fed]


@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
@pytest.mark.parametrize("where", ["resident", "from memory by blocks", "from disk by blocks"])
@pytest.mark.parametrize("name", OWN)
def test_own_rows_are_those_of_one_process(name, where, gaps, as_process):
    pairs = data(gaps)
    if where == "from disk by blocks":
        pairs = replace(pairs, tables={m: OnDisk(t) for m, t in pairs.tables.items()})
        for table in pairs.tables.values():
            table.lengths = getattr(table.table, "lengths", torch.ones(len(table)))
    blocks = where != "resident"
    whole = batches(pairs, OWN[name](), blocks)
    for number in range(PROCESSES):
        as_process(number)
        found = batches(pairs, OWN[name](), blocks)
        for own, wanted in zip(found, whole, strict=True):
            assert torch.equal(own.links, wanted.links) and own.own is not None
            share = own.own.share(len(wanted.links))
            part = wanted.part(share, {})
            assert all(len(x) == share.stop - share.start for x in own.latents.values())
            for modality, x in own.part(share, {}).latents.items():
                torch.testing.assert_close(as_rows(x), as_rows(part.latents[modality]))


@pytest.mark.parametrize("blocks", [False, True])
def test_a_process_reads_its_share_of_the_rows(blocks, as_process):
    asked = []
    for number in range(PROCESSES):
        as_process(number)
        tables = {m: OnDisk(t) for m, t in data(False).tables.items()}
        batches(PairedLatents(tables, data(False).links), FuseMixMixup(), blocks)
        asked.append(tables["image"].asked)
    assert sum(asked) == 2 * 56 and max(asked) - min(asked) <= 2 * 2 * 4


def test_a_table_that_tells_no_lengths_is_padded_for_its_longest_item(as_process):
    pairs = data(False)
    tables = {m: OnDisk(t) for m, t in pairs.tables.items()}
    as_process(1)
    found = batches(replace(pairs, tables=tables), NoMixup(), True)
    assert {x.latents["text"].values.shape[1] for x in found} == {pairs.tables["text"].shape[0]}


class OwnCall(FuseMixMixup):
    """Mixes every row with the next, which the class above knows nothing of."""

    rows_per_pair = 1

    def __call__(self, batch, generator, progress):
        rows = torch.arange(len(batch.links))
        return batch.mixed(lambda x, y: 0.5 * x + 0.5 * y, rows, rows.roll(1))


@pytest.mark.parametrize("mixup", [PermutedMixup, OwnCall])
def test_a_mixup_that_does_not_say_gets_whole_batches(mixup, as_process):
    whole = batches(data(True), mixup(), False)
    as_process(1)
    for found, wanted in zip(batches(data(True), mixup(), False), whole, strict=True):
        assert found.own is None
        for modality, x in found.latents.items():
            assert torch.equal(as_rows(x), as_rows(wanted.latents[modality]))


class OtherRows(NoMixup):
    def __call__(self, batch, generator, progress):
        return batch.mixed(lambda x: x, torch.arange(len(batch.links)).flip(0))

    sources = NoMixup.sources


class OwnMaking(NoMixup):
    def __call__(self, batch, generator, progress):
        return Batch(batch.latents, batch.links)

    sources = NoMixup.sources


@pytest.mark.parametrize("mixup", [OtherRows, OwnMaking])
def test_a_mixup_that_says_other_rows_than_it_mixes_is_refused(mixup, as_process):
    as_process(0, 2)
    with pytest.raises(ContractError):
        batches(data(False), mixup(), False)


def test_noise_of_own_rows_knows_which_of_them_are_there():
    links = torch.tensor([[0, 0], [1, -1], [2, 2], [-1, 3]])[:, None]
    own = Own.of([torch.arange(4)], 1, 2)
    batch = Batch({"a": torch.ones(2, 3), "b": torch.ones(2, 3)}, links, own=own)
    changed = batch.changed(lambda x, there: x + 1)
    assert changed.latents["a"][:, 0].tolist() == [2, 0]
    assert changed.latents["b"][:, 0].tolist() == [2, 2]


def test_a_step_reads_own_latents_without_the_others():
    own = Own.of([torch.arange(4)], 0, 1)
    tokens = Padded.of([torch.ones(n, 2) for n in (1, 2, 3, 1)])
    batch = Batch({"a": torch.arange(8.0).view(4, 2), "b": tokens}, torch.zeros(4, 1, 2), own=own)
    step = Step(batch, {})
    assert torch.equal(step.own.latents["a"], batch.latents["a"])
    assert torch.equal(step.latents["b"].mask, tokens.mask)


def test_rows_that_were_not_read_are_named():
    assert issubclass(FuseMixMixup, Mixup)
    own = Own.of([torch.arange(4), torch.arange(4, 8)], 1, 2)
    assert own.rows.tolist() == [2, 3, 6, 7]
    assert own.places(torch.tensor([7, 2])).tolist() == [3, 0]
    assert own.within(slice(2, 4)) == slice(0, 2)
    for rows in ([4], [0], [99]):
        with pytest.raises(ContractError, match="sources"):
            own.places(torch.tensor(rows))
