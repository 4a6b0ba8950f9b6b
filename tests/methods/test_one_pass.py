"""Closed forms take all pairs in one pass, in the order of the store, and can be followed and
stopped."""

import threading

import pytest
import torch

from fusemix_core.aligners import features, moments
from fusemix_core.aligners.cca import CCAAligner
from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.aligners.moments import Moments, moments_of
from fusemix_core.cli.progress import ConsoleReporter
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.interfaces import Callback, FitContext, PairedLatents, ResidentLatents

RECIPE = Recipe("r", Part("cca"))


class OnDisk:
    """A table that counts how often each item is asked for."""

    def __init__(self, latents):
        self.latents, self.asked = latents, []

    dim = property(lambda self: self.latents.shape[1])

    def __len__(self):
        return len(self.latents)

    def rows(self, index):
        self.asked.append(index)
        return self.latents[index]


class Passes(Callback):
    """Remembers how far each pass was; may stop a fit there."""

    def __init__(self, stop_at=None):
        self.told, self.stop_at = [], stop_at

    def on_pairs(self, done, total):
        self.told.append((done, total))
        if done == self.stop_at:
            raise KeyboardInterrupt


def drawn(n=90, dims=(9, 7), seed=0, table=ResidentLatents):
    g = torch.Generator().manual_seed(seed)
    cause = torch.randn(n, 5, generator=g)
    views = [
        cause @ torch.randn(5, d, generator=g) + torch.randn(n, d, generator=g) + 1 for d in dims
    ]
    links = torch.stack([torch.randperm(n, generator=g)] * len(dims), 1)
    return PairedLatents({f"m{k}": table(v) for k, v in enumerate(views)}, links)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(moments, "_CHUNK_BYTES", 0)
    monkeypatch.setattr(moments, "_LEAST_ROWS", 32)


def test_moments_are_told_of_and_read_every_item_once_in_order():
    pairs, passes = drawn(table=OnDisk), Passes()
    moments_of(pairs, FitContext(callbacks=[passes]))
    assert passes.told == [(0, 90), (32, 90), (64, 90), (90, 90)]
    for table in pairs.tables.values():
        assert torch.cat(table.asked).tolist() == list(range(90))


def test_linear_cca_reads_items_once_beside_its_sample_whatever_it_chooses_from(monkeypatch):
    monkeypatch.setattr(features, "_SAMPLE", 8)
    pairs = drawn(table=OnDisk)
    CCAAligner(landmarks=0, ridges=[1.0, 3.0, 10.0]).fit(pairs, drawn(seed=1), RECIPE, FitContext())
    for table in pairs.tables.values():
        sample, *chunks = table.asked
        assert len(sample) == 8 and torch.cat(chunks).tolist() == list(range(90))


def test_only_the_kernel_takes_a_sample_of_the_pairs():
    passes = Passes()
    cca = CCAAligner(kernel_pairs=40)
    cca.fit(drawn(), drawn(seed=1), RECIPE, FitContext(callbacks=[passes]))
    assert [total for done, total in passes.told if done == total] == [90, 40]


@pytest.mark.parametrize("widths", [(70, 40), (1100, 30)])
def test_float32_products_are_as_exact_as_said_whatever_the_order(widths, monkeypatch):
    """Rows sorted by their first feature, so that the first chunk is far from the mean."""
    monkeypatch.setattr(moments, "_LEAST_ROWS", 1_024)
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(6_000, d, generator=g) * 3 + 5 for d in widths)
    x[:, 1] += x[:, 0]
    y[:, 0] += x[:, 0]
    order = x[:, 0].argsort()
    x, y = x[order], y[order]
    pairs = PairedLatents(
        {"x": ResidentLatents(x), "y": ResidentLatents(y)},
        torch.arange(6_000)[:, None].repeat(1, 2),
    )
    found = moments_of(pairs, FitContext())
    exact = torch.cov(torch.cat([x, y], 1).double().T, correction=0)
    parts = exact.split(list(widths))
    spread = exact.diagonal().max().item()
    for k in range(2):
        for m in range(2):
            error = found.covariance(k, m) - parts[k].split(list(widths), 1)[m]
            assert error.abs().max() < 1e-6 * spread
    torch.testing.assert_close(found.mean(0), x.double().mean(0), rtol=0, atol=1e-5)


def test_standardised_moments_are_those_of_standardised_rows():
    x, y = (t.latents.double() for t in drawn().tables.values())
    centres, scales = [x[0], y[0]], [torch.tensor(2.0), torch.tensor(0.5)]
    everything = torch.ones(len(x), 2, dtype=torch.bool)
    got, want = Moments([9, 7]), Moments([9, 7])
    got.update([x, y], everything)
    got.standardise(centres, scales)
    want.update([(x - centres[0]) / scales[0], (y - centres[1]) / scales[1]], everything)
    for k in range(2):
        torch.testing.assert_close(got.mean(k), want.mean(k))
        for m in range(2):
            torch.testing.assert_close(got.covariance(k, m), want.covariance(k, m))


def test_a_pass_that_is_interrupted_ends_and_leaves_no_thread():
    passes = Passes(stop_at=32)
    with pytest.raises(KeyboardInterrupt):
        CCAAligner().fit(drawn(table=OnDisk), drawn(seed=1), RECIPE, FitContext(callbacks=[passes]))
    assert passes.told[-1] == (32, 90)
    assert not [t for t in threading.enumerate() if t.name.startswith("fusemix-feed")]


def test_the_passes_of_a_start_are_told_too():
    passes = Passes()
    recipe = Recipe(
        "r",
        Part("gradient"),
        adapter=Part("kernel"),
        objective=Part("infonce"),
        training=Training(epochs=1, batch_size=8),
        start=Part("cca", {"landmarks": 0}),
    )
    GradientAligner().fit(drawn(), drawn(seed=1), recipe, FitContext(callbacks=[passes]))
    assert passes.told[0] == (0, 90) and passes.told[-1] == (90, 90)


def test_the_command_line_shows_each_pass_with_rate_and_time_left(monkeypatch):
    made = []

    def bars(unit):
        from fusemix_core.cli.console import progress

        made.append(progress(unit))
        made[-1].disable = True
        return made[-1]

    monkeypatch.setattr("fusemix_core.cli.progress.progress", bars)
    with ConsoleReporter() as reporter:
        CCAAligner().fit(drawn(), drawn(seed=1), RECIPE, FitContext(callbacks=[reporter]))
    shown = [(t.description, t.completed, t.total) for bar in made for t in bar.tasks]
    assert shown == [("pairs", 90, 90)] * 2
