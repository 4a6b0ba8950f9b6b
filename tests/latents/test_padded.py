"""Latents of items that differ in length, and what batches and tables make of them."""

import pytest
import torch

from fusemix_core.adapters.rows import embed_rows, for_adapters, width_of
from fusemix_core.aligners.cca import CCAAligner
from fusemix_core.aligners.regression import regress
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.engine.feed import feed
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.tables import _moved
from fusemix_core.interfaces import (
    Adapter,
    FitContext,
    Padded,
    TokenAdapter,
    as_rows,
    as_tokens,
    rows_of,
)
from fusemix_core.paired import PairedLatents, ResidentLatents, ResidentTokens, in_memory, joined

ITEMS = [torch.arange(6.0).view(3, 2) + 1, torch.tensor([[-1.0, -2.0]]), torch.zeros(2, 2)]


@pytest.fixture
def padded():
    """Items of three tokens, of one, and of two that are zero; NaN for padding."""
    found = Padded.of(ITEMS)
    return Padded(found.filled(torch.nan), found.mask)


def test_items_are_padded_to_the_longest_and_given_back(padded):
    assert padded.values.shape == (3, 3, 2) and len(padded) == 3
    assert padded.mask.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    for own, mask, item in zip(padded.values, padded.mask, ITEMS, strict=True):
        assert torch.equal(own[mask], item)
    assert (padded.dtype, padded.device) == (torch.float32, torch.device("cpu"))
    assert padded.to(torch.float64).dtype == torch.float64


def test_rows_are_taken_by_slice_index_and_mask(padded):
    for rows in (slice(1, 3), torch.tensor([1, 2]), torch.tensor([False, True, True])):
        assert torch.equal(padded[rows].filled(), padded.filled()[1:])
        assert torch.equal(padded[rows].mask, padded.mask[1:])


def test_parts_of_different_lengths_are_put_together(padded):
    both = Padded.cat([padded[1:2], padded.padded_to(5), padded[:0]])
    assert both.values.shape == (4, 5, 2)
    assert both.mask.sum(dim=1).tolist() == [1, 3, 1, 2]
    assert torch.equal(both.filled()[1:, :3], padded.filled())


def test_one_row_an_item_has_zeros_for_padding(padded):
    rows = as_rows(padded)
    assert rows.tolist() == [[1, 2, 3, 4, 5, 6], [-1, -2, 0, 0, 0, 0], [0] * 6]
    assert torch.equal(as_rows(padded, 10), torch.nn.functional.pad(rows, (0, 4)))
    grid = torch.randn(4, 2, 3, 5)
    assert torch.equal(as_rows(grid), grid.flatten(1))


def test_any_view_can_be_taken_as_tokens(padded):
    assert as_tokens(padded) is padded
    grid = torch.randn(4, 2, 3, 5)
    assert torch.equal(as_tokens(grid).values, grid.view(4, 6, 5))
    assert as_tokens(grid).mask.all() and as_tokens(grid).mask.shape == (4, 6)
    assert as_tokens(torch.ones(4, 5)).values.shape == (4, 1, 5)


@pytest.fixture
def pairs(padded):
    """Five rows, of which the second and the last lack the text."""
    tables = {
        "image": ResidentLatents(torch.randn(4, 2, 3)),
        "text": ResidentTokens(torch.cat(ITEMS), torch.tensor([3, 1, 2])),
    }
    links = torch.tensor([[0, 1], [1, -1], [2, 2], [3, 1], [0, -1]])
    return PairedLatents(tables, links)


def test_a_batch_holds_tokens_of_whom_asks_and_rows_of_the_others(pairs):
    rows = torch.arange(5)
    plain = pairs.batch(rows).latents
    assert plain["image"].shape == (5, 6) and plain["text"].shape == (5, 6)
    assert torch.equal(plain["text"][2], torch.zeros(6))
    asked = pairs.with_tokens(["text"]).batch(rows).latents
    assert torch.equal(asked["image"], plain["image"])
    assert isinstance(asked["text"], Padded)
    # As long as the longest item of the batch, which is not the longest of all; a missing one has
    # none, and zeros are tokens.
    assert asked["text"].values.shape == (5, 2, 2)
    assert asked["text"].mask.sum(dim=1).tolist() == [1, 0, 2, 1, 0]
    none = pairs.with_tokens(["text", "image"]).batch(torch.tensor([1, 4])).latents
    assert none["text"].values.shape == (2, 1, 2) and not none["text"].mask.any()
    assert none["image"].values.shape == (2, 2, 3)


@pytest.mark.parametrize("blocks", [False, True])
def test_unpaired_items_come_in_the_form_of_the_batch(pairs, blocks):
    pairs.unpaired = {"text": torch.tensor([0, 2]), "image": torch.tensor([3])}
    plan = plan_steps(len(pairs), 1, Training(epochs=1, batch_size=2, unpaired=2))
    asked, device = pairs.with_tokens(["text"]), torch.device("cpu")
    batches = list(feed(asked, plan, 0, device, blocks=blocks))
    assert len(batches) == 2
    for batch in batches:
        assert batch.unpaired["image"].shape == (1, 6)
        assert sorted(batch.unpaired["text"].mask.sum(dim=1).tolist()) == [2, 3]


def test_who_asks_is_remembered_by_parts_of_the_pairs(pairs):
    asked = pairs.with_tokens(["text"])
    assert asked.select(torch.tensor([0])).tokens == asked.only(["text"]).tokens == {"text"}
    assert pairs.tokens == frozenset()


class First(TokenAdapter):
    def __init__(self, dim_in, dim_out):
        super().__init__()
        self.out = torch.nn.Linear(dim_in, dim_out)

    def tokens(self, latents):
        return Padded(self.out(latents.filled()), latents.mask)

    def pool(self, tokens, latents):
        return tokens.filled()[:, 0]


class Plain(Adapter):
    def __init__(self, dim_in, dim_out):
        super().__init__()
        self.out = torch.nn.Linear(dim_in, dim_out)

    def forward(self, latents):
        return self.out(latents)


def test_each_adapter_gets_the_form_that_it_takes(pairs):
    adapters = {"image": Plain(6, 4).double(), "text": First(2, 4)}
    assert for_adapters(pairs, adapters).tokens == {"text"}
    assert (width_of(adapters["image"], 6), width_of(adapters["text"], 2)) == (4, 4)
    adapters["image"].float()
    ids = torch.tensor([2, 0])
    normal = torch.nn.functional.normalize
    found = embed_rows(adapters["text"], pairs.tables["text"], ids)
    first = torch.stack([ITEMS[2][0], ITEMS[0][0]])
    torch.testing.assert_close(found, normal(adapters["text"].out(first)).detach())
    found = embed_rows(adapters["image"], pairs.tables["image"], ids)
    rows = pairs.tables["image"].latents[ids].flatten(1)
    torch.testing.assert_close(found, normal(adapters["image"].out(rows)).detach())


class OnDisk:
    """A table that is not resident."""

    def __init__(self, table):
        self.rows, self.shape, self.dim = table.rows, table.shape, table.dim
        self.length = len(table)

    def __len__(self):
        return self.length


def test_tables_that_are_moved_to_a_device_keep_their_items(pairs):
    for name, table in pairs.tables.items():
        moved = _moved(OnDisk(table), torch.device("cpu"))
        assert type(moved) is type(table) and moved.shape == table.shape
        assert torch.equal(moved.latents, table.latents)
        ids = torch.tensor([2, 1, 1])
        assert torch.equal(rows_of(moved, ids), rows_of(table, ids)), name
        parts = [in_memory(table.rows(part)) for part in torch.arange(len(table)).split(2)]
        assert torch.equal(joined(parts).latents, table.latents)


def world(n=120):
    """Pairs of rows and of items of 1 to 4 tokens, whose mean tells the row."""
    draw = torch.Generator().manual_seed(0)
    rows, lengths = torch.randn(n, 6, generator=draw), torch.randint(1, 5, (n,), generator=draw)
    mix = torch.randn(6, 3, generator=draw)
    tokens = [(row @ mix).expand(k, -1) for row, k in zip(rows, lengths.tolist(), strict=True)]
    tables = {"image": ResidentLatents(rows), "text": ResidentTokens(torch.cat(tokens), lengths)}
    return PairedLatents(tables, torch.arange(n)[:, None].repeat(1, 2))


def test_a_closed_form_fits_to_a_fixed_adapter_of_tokens():
    torch.manual_seed(1)  # some maps to five dimensions tell few of 30 rows apart
    pairs, fixed = world(), First(3, 5).eval()
    context = FitContext(fixed={"text": fixed})
    train, validation = pairs.select(torch.arange(90)), pairs.select(torch.arange(90, 120))
    fitted = regress(train, validation, context, landmarks=(0,), ridges=(1.0,))
    ids = torch.arange(90, 120)
    x, y = (embed_rows(fitted[m], pairs.tables[m], ids) for m in ("image", "text"))
    assert ((x @ y.T).argmax(dim=1) == torch.arange(30)).float().mean() > 0.5


def test_a_closed_form_takes_a_view_of_more_axes_as_one_row():
    pairs = world()
    flat = PairedLatents({"a": pairs.tables["image"], "b": pairs.tables["image"]}, pairs.links)
    layers = ResidentLatents(pairs.tables["image"].latents.unflatten(1, (2, 3)))
    layered = PairedLatents({"a": layers, "b": layers}, pairs.links)
    recipe, context = Recipe("r", Part("cca")), FitContext()
    wanted = CCAAligner(landmarks=0).fit(flat, flat, recipe, context)
    found = CCAAligner(landmarks=0).fit(layered, layered, recipe, context)
    for name, value in wanted["a"].state_dict().items():
        assert torch.equal(found["a"].state_dict()[name], value), name
