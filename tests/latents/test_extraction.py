import contextlib
import io
import threading
import time

import numpy as np
import pytest
import torch
import toys
from PIL import Image

from fusemix_core.data.media import Audio
from fusemix_core.data.media.wide import STRETCHED
from fusemix_core.data.reading import pairs_from
from fusemix_core.errors import ArtefactError, ContractError, DataError, FusemixError
from fusemix_core.latents import extraction, filling
from fusemix_core.latents.extraction import shard_size
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.latents.shards import read_shard, write_shard
from fusemix_core.latents.store import LatentStore


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(extraction, "shard_size", lambda items: 50)


def run(toy, items, store, spec=None, **options):
    return toy.extracted(spec or toy.spec(), items, store, **options)


def expected(toy, values):
    """The latents, item by item."""
    encoder = toy.ToyEncoder(toy.spec())
    return torch.cat([encoder.encode(encoder.collate([v])) for v in values])


def files(store):
    """Everything in the store: path → bytes."""
    return {p.relative_to(store.folder): p.read_bytes() for p in store.folder.rglob("*.*")}


def shard_paths(store):
    return sorted(store.folder.rglob("*.safetensors"))


def encoded(toy):
    return sorted(item for batch in toy.ToyEncoder.batches for item in batch)


# -- what is encoded -----------------------------------------------------------------------------


def test_rows_are_the_items_whatever_the_order_of_encoding(toy, store, small_shards):
    values = toy.texts(130)
    done = run(toy, toy.ToyItems(values), store, store_dtype="float32", batch_size=16)
    torch.testing.assert_close(done.table.rows(torch.arange(130)), expected(toy, values))
    assert (done.encoded, done.cached, done.bad, done.warnings) == (130, 0, {}, [])
    assert done.fingerprint == fingerprint(toy.spec(), "float32")
    assert [len(read_shard(p)) for p in shard_paths(store)].count(50) == 2


def test_parts_of_the_items_make_the_shards_of_the_whole(toy, store, small_shards, tmp_path):
    values = toy.texts(130)
    run(toy, toy.ToyItems(values), store, batch_size=16)
    apart = LatentStore(tmp_path / "apart")
    for at in (100, 0, 50):
        part = toy.ToyItems(values[at : at + 50])
        run(toy, part, apart, batch_size=16, shard=50)
    assert files(apart) == files(store)


def test_float16_is_the_default_and_close(toy, store):
    values = toy.texts(40)
    done = run(toy, toy.ToyItems(values), store)
    assert done.table.dtype == torch.float16
    close = {"rtol": 1e-3, "atol": 1e-3}
    torch.testing.assert_close(done.table.rows(torch.arange(40)), expected(toy, values), **close)


def test_nothing_missing_loads_nothing(toy, store):
    items = toy.ToyItems(toy.texts(20))
    run(toy, items, store)
    before = files(store)
    again = run(toy, items, LatentStore(store.folder.parent))
    assert (again.encoded, again.cached) == (0, 20)
    assert toy.ToyEncoder.loads == 1
    assert files(store) == before


def test_added_rows_are_all_that_is_encoded(toy, store):
    values = toy.texts(60)
    run(toy, toy.ToyItems(values[10:50]), store)
    toy.ToyEncoder.batches.clear()
    done = run(toy, toy.ToyItems(values), store)
    assert encoded(toy) == sorted(values[:10] + values[50:])
    assert (done.encoded, done.cached) == (20, 40)
    assert done.table.rows(torch.arange(60)).shape == (60, toy.DIM)


def test_datasets_share_items_and_a_float32_run_serves_float16(toy, store):
    run(toy, toy.ToyItems(toy.texts(30)), store, store_dtype="float32")
    toy.ToyEncoder.batches.clear()
    other = toy.ToyItems(toy.texts(30, start=20)[::-1])
    assert run(toy, other, store).encoded == 20
    assert len(encoded(toy)) == 20
    assert run(toy, other, store, store_dtype="float32").encoded == 20


def test_texts_of_like_length_go_together(toy, store):
    run(toy, toy.ToyItems(toy.texts(200)), store, batch_size=20)
    spans = [(max(map(len, b)), min(map(len, b))) for b in toy.ToyEncoder.batches]
    assert spans == sorted(spans, reverse=True)
    assert all(shortest >= spans[i + 1][0] for i, (_, shortest) in enumerate(spans[:-1]))


def test_clips_are_sorted_too_and_put_back(toy, store, small_shards):
    rng = np.random.default_rng(0)
    clips = [
        Audio(rng.standard_normal(n).astype(np.float32), 8000) for n in rng.integers(1, 99, 70)
    ]
    spec = toy.spec(modality="audio")
    items = toy.ToyItems(clips, "audio")
    done = run(toy, items, store, spec, store_dtype="float32", batch_size=3, workers=3)
    torch.testing.assert_close(done.table.rows(torch.arange(70)), expected(toy, clips))
    lengths = [[len(c.samples) for c in b] for b in toy.ToyEncoder.batches]
    assert lengths[0] == sorted(lengths[0], reverse=True)


def test_shards_grow_with_the_data():
    assert [shard_size(n) for n in (1, 10**5, 10**6, 5 * 10**6)] == [1024, 1024, 4096, 16384]
    assert all(n / shard_size(n) <= 310 for n in range(1000, 5 * 10**6, 9999))
    assert [shard_size(n) for n in (10**7, 10**8, 10**9)] == [32_768, 262_144, 262_144]
    assert all(n / shard_size(n) <= 512 for n in range(10**7, 10**8, 999_999))


def test_a_large_shard_of_pooled_latents_has_several_groups(toy, store, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "shard_size", lambda items: 64)
    monkeypatch.setattr("fusemix_core.latents.batches.GROUP", 32)
    values = toy.texts(150)
    values[40] = toy.damaged(40)
    items, whole = toy.ToyItems(values), LatentStore(tmp_path / "whole")
    run(toy, items, whole)
    assert sorted(len(read_shard(p)) for p in shard_paths(whole)) == [21, 64, 64]

    def interrupt(done, total):
        if done >= 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(toy, items, store, progress=interrupt)
    run(toy, items, store)
    assert {p.name: p.read_bytes() for p in shard_paths(store)} == {
        p.name: p.read_bytes() for p in shard_paths(whole)
    }
    monkeypatch.setattr(filling, "SHARD_BYTES", 1)  # a shard ends after a group
    small = LatentStore(tmp_path / "small")
    run(toy, items, small)
    assert sorted(len(read_shard(p)) for p in shard_paths(small)) == [21, 32, 32, 32, 32]


def test_ctrl_c_reports_the_encoded_items_that_are_lost(toy, store, monkeypatch):
    monkeypatch.setattr(extraction, "shard_size", lambda items: 64)
    heard = []

    def interrupt(done, total):
        heard.append(done)
        if done >= 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:
        run(toy, toy.ToyItems(toy.texts(150)), store, progress=interrupt)
    (note,) = stop.value.__notes__
    kept = sum(len(read_shard(path)) for path in shard_paths(store))
    assert kept == 64 and note.startswith(f"{heard[-1] - kept} text items that ")
    assert "a part of up to 64" in note
    done = run(toy, toy.ToyItems(toy.texts(150)), store)
    assert done.encoded == 150 - kept


# -- the encoder ---------------------------------------------------------------------------------


def test_an_encoder_that_only_loading_identifies(toy, store):
    spec = toy.spec(sha256="")
    items = toy.ToyItems(toy.texts(5))
    digest = toy.ToyEncoder(spec).weights_digest
    assert run(toy, items, store, spec).fingerprint == fingerprint(spec, "float32", digest)
    assert run(toy, items, store, spec).encoded == 0
    assert toy.ToyEncoder.loads == 2


def test_a_given_encoder_is_used_and_kept(toy, store):
    encoder = toy.ToyEncoder(toy.spec())
    run(toy, toy.ToyItems(toy.texts(5)), store, encoder=encoder)
    assert toy.ToyEncoder.loads == 0 and toy.ToyEncoder.batches


@pytest.mark.parametrize("fails", [False, True])
def test_the_encoder_is_freed_before_the_store_is_opened(toy, store, monkeypatch, fails):
    class Watched(toy.ToyEncoder):
        alive = 0

        def __init__(self, spec):
            super().__init__(spec)
            type(self).alive += 1

        def __del__(self):
            type(self).alive -= 1

        def encode(self, batch, view="pooled"):
            if fails:
                raise KeyError("broken")
            return super().encode(batch, view)

    monkeypatch.setattr(toy, "Watched", Watched, raising=False)
    Watched.__module__, Watched.__qualname__ = toy.__name__, "Watched"
    alive, opened = [], store.open
    monkeypatch.setattr(
        store, "open", lambda *a, **k: (alive.append(Watched.alive), opened(*a, **k))
    )
    with pytest.raises(KeyError) if fails else contextlib.nullcontext():
        run(toy, toy.ToyItems(toy.texts(5)), store, toy.spec(Watched))
    assert Watched.alive == 0
    assert alive == ([] if fails else [0])


def test_out_of_memory_halves_the_batch_and_goes_on(toy, store, small_shards):
    values = toy.texts(120)
    spec = toy.spec(options={"at_once": 5})
    done = run(toy, toy.ToyItems(values), store, spec, batch_size=32, store_dtype="float32")
    sizes = [len(b) for b in toy.ToyEncoder.batches]
    assert max(sizes) == 4 and sum(sizes) == 120
    torch.testing.assert_close(done.table.rows(torch.arange(120)), expected(toy, values))
    assert done.warnings == ["Batches of toy were cut to 4 to fit in memory."]


def test_no_memory_for_one_item_is_an_error_that_helps(toy, store):
    spec = toy.spec(options={"at_once": 0})
    with pytest.raises(FusemixError, match="memory enough") as caught:
        run(toy, toy.ToyItems(toy.texts(9)), store, spec)
    assert "--dtype float16" in caught.value.hint


def test_progress_counts_missing_items_up_to_all(toy, store, small_shards):
    values = toy.texts(100)
    run(toy, toy.ToyItems(values[:20]), store)
    values[30] = toy.damaged(30)
    seen = []
    run(toy, toy.ToyItems(values), store, batch_size=8, progress=lambda *a: seen.append(a))
    assert seen[0] == (0, 80) and seen[-1] == (80, 80)
    assert {total for _, total in seen} == {80}
    assert [d for d, _ in seen] == sorted(d for d, _ in seen) and len(seen) > 8


def test_truncated_texts_are_counted_and_said(toy, store):
    class Cutting(toy.ToyEncoder):
        def truncated(self, items):
            return sum(len(item.split()) > 30 for item in items)

    encoder = Cutting(toy.spec(max_tokens=30))
    values = toy.texts(100)
    count = sum(len(v.split()) > 30 for v in values)
    done = run(toy, toy.ToyItems(values), store, encoder.spec, encoder=encoder, batch_size=8)
    (warning,) = done.warnings
    assert warning.startswith(f"{count} of 100 text items are longer than 30 tokens")


def test_how_items_were_decoded_is_told_once_with_their_number(toy, store):
    def wide(high: int) -> bytes:
        sink = io.BytesIO()
        Image.fromarray(np.linspace(0, high, 40).astype(np.uint16).reshape(5, 8)).save(sink, "PNG")
        return sink.getvalue()

    images = [wide(high) for high in (65535, 4095, 1023, 60000, 16383)]
    pairs = {"image": images, "text": toy.texts(5)}
    dataset = pairs_from(pairs, {"image": "image", "text": "text"}, split=["train"] * 5)
    for most in (5, 0):  # encoded at first, cached then
        done = toy.extracted(toys.ToyImage.spec, dataset.items["image"], store, batch_size=2)
        assert done.encoded == most
        told = [f"3 of 5 image items {STRETCHED}."]
        assert done.warnings == (told if most else [])


def test_decoding_and_collating_use_several_threads(toy, store):
    names, together = set(), threading.Barrier(2, timeout=20)

    class Slow(toy.ToyItems):
        def load(self, i, sample_rate=None):
            names.add(threading.current_thread().name)
            if i < 2:
                together.wait()  # passes only if two items are loaded at once
            return str(i)

    spec = toy.spec(takes="image")
    done = run(toy, Slow(list(range(40)), "image"), store, spec, workers=2, batch_size=4)
    assert len(names) == 2 and done.encoded == 40


def test_what_is_decoded_ahead_is_bounded(toy, store, monkeypatch):
    monkeypatch.setattr("fusemix_core.latents.pipeline._HELD_AHEAD", 4000)
    monkeypatch.setattr("fusemix_core.latents.cutting.BATCH_BYTES", 2000)
    loaded, taken, most = [], [], 0

    class Clips(toy.ToyItems):
        def load(self, i, sample_rate=None):
            nonlocal most
            loaded.append(i)
            most = max(most, len(loaded) - len(taken))
            return Audio(np.full(250, i, np.float32), 8000)  # 1000 bytes

    class Counting(toy.ToyEncoder):
        def encode(self, batch, view="pooled"):
            time.sleep(0.005)
            taken.extend(batch[0])
            assert len(batch[0]) <= 2
            return super().encode(batch, view)

    encoder = Counting(toy.spec(modality="audio"))
    items = Clips(list(range(60)), "audio")
    run(toy, items, store, encoder.spec, encoder=encoder, workers=2, batch_size=16)
    # 4 ahead and one a thread, 2 in the window, and 4 batches of 2 on their way.
    assert len(taken) == 60 and most <= 4 + 2 + 2 + 8


# -- bad items -----------------------------------------------------------------------------------


def with_bad(toy, n=120, bad=(0, 7, 60, 119)):
    values = toy.texts(n)
    for i in bad:
        values[i] = toy.damaged(i) if i % 2 else OSError(f"{i}")
    return values


@pytest.mark.parametrize("modality", ["text", "image"])
def test_bad_items_are_set_aside_with_their_reason(toy, store, small_shards, modality):
    values = with_bad(toy)
    items = toy.ToyItems(values, modality)
    spec = toy.spec(modality=modality)
    done = run(toy, items, store, spec, batch_size=8, workers=2, store_dtype="float32")
    assert list(done.bad) == [0, 7, 60, 119]
    assert done.bad[7] == "item 7 is damaged" and done.bad[60] == "OSError: 60"
    assert (done.encoded, done.cached) == (116, 0)
    good = [i for i in range(120) if i not in done.bad]
    rows = done.table.rows(torch.arange(120))
    torch.testing.assert_close(rows[good], expected(toy, [values[i] for i in good]))
    assert not rows[list(done.bad)].any()
    again = run(toy, items, store, spec)
    assert again.bad == done.bad and (again.encoded, again.cached) == (0, 116)


def test_an_item_that_the_encoder_cannot_collate_is_bad_alone(toy, store):
    values = toy.texts(30)
    values[4] = values[4] + "uncollatable"
    done = run(toy, toy.ToyItems(values), store, batch_size=8)
    assert done.bad == {4: "ValueError: can't collate that"} and done.encoded == 29


def test_no_good_item_is_an_error_with_the_first_reason(toy, store):
    items = toy.ToyItems([toy.damaged(i) for i in range(3)])
    with pytest.raises(DataError, match="None of the 3") as caught:
        run(toy, items, store)
    assert "item 0 is damaged" in caught.value.hint
    with pytest.raises(DataError, match="None of the 0"):
        run(toy, toy.ToyItems([]), store)


def test_a_fault_of_the_program_is_no_bad_item(toy, store):
    values = [*toy.texts(5), ZeroDivisionError("bug")]
    with pytest.raises(ZeroDivisionError):
        run(toy, toy.ToyItems(values), store)


def test_a_home_that_cannot_be_written_is_found_before_the_encoder_is_loaded(toy, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match="can't be written"):
        run(toy, toy.ToyItems(toy.texts(5)), LatentStore(tmp_path / "file"))
    assert toy.ToyEncoder.loads == 0


def test_a_full_disk_keeps_finished_shards_and_ends_with_an_error(
    toy, store, small_shards, monkeypatch
):
    items, writes = toy.ToyItems(toy.texts(170)), []

    def full_later(*args):
        writes.append(args)
        if len(writes) == 3:
            raise ArtefactError("Latents can't be written: No space left on device.")
        return write_shard(*args)

    with monkeypatch.context() as patch:
        patch.setattr("fusemix_core.latents.store.write_shard", full_later)
        with pytest.raises(ArtefactError, match="No space"):
            run(toy, items, store)
    assert len(shard_paths(store)) == 2
    assert run(toy, items, store).encoded == 70


# -- interrupted ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("modality", "at"), [("text", 60), ("image", 1), ("image", 140)])
def test_interrupted_and_resumed_is_never_interrupted(
    toy, store, tmp_path, small_shards, modality, at
):
    items = toy.ToyItems(with_bad(toy, 170, (0, 7, 60, 119, 168)), modality)
    spec = toy.spec(modality=modality)
    whole = LatentStore(tmp_path / "whole")
    run(toy, items, whole, spec, batch_size=8)

    def interrupt(done, total):
        if done >= at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(toy, items, store, spec, batch_size=8, progress=interrupt)
    kept = len(shard_paths(store))
    toy.ToyEncoder.batches.clear()
    done = run(toy, items, store, spec, batch_size=8)
    assert files(store) == files(whole)
    assert len(encoded(toy)) == done.encoded == 165 - 50 * kept


# -- damage, precision, contract -----------------------------------------------------------------


def test_a_damaged_shard_is_made_again_and_said(toy, store, small_shards):
    items = toy.ToyItems(toy.texts(130))
    run(toy, items, store)
    before = files(store)
    path = shard_paths(store)[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 128
    path.write_bytes(data)
    lost = len(read_shard(path))
    done = run(toy, items, LatentStore(store.folder.parent))
    assert done.encoded == lost
    assert len(done.warnings) == 1 and path.name in done.warnings[0]
    path.with_name(path.name + ".bad").unlink()
    assert files(store) == before


def scaled(toy, factor, offset=0.0):
    class Scaled(toy.ToyEncoder):
        def encode(self, batch, view="pooled"):
            far = torch.tensor([item.startswith("far") for item in batch[0]])[:, None]
            latents = super().encode(batch, view)
            return torch.where(far, latents * factor + offset, latents)

    return Scaled(toy.spec())


def test_latents_beyond_float16_are_stored_as_float32_shard_by_shard(toy, store, small_shards):
    values = toy.texts(150)
    values[60] = "far away"
    done = run(toy, toy.ToyItems(values), store, encoder=scaled(toy, 1e6))
    assert done.warnings == [
        "1 of 3 shards of toy hold values that float16 can't: stored as float32."
    ]
    assert sorted(read_shard(p).dtype for p in shard_paths(store)).count("float32") == 1
    rows = done.table.load().latents
    assert rows.dtype == torch.float32 and rows[60].abs().max() > 65504 and rows.isfinite().all()
    assert run(toy, toy.ToyItems(values), store).encoded == 0


def test_latents_in_a_narrow_cone_are_stored_as_float32(toy, store):
    values = ["far " + v for v in toy.texts(100)]
    done = run(toy, toy.ToyItems(values), store, encoder=scaled(toy, 1e-3, 50.0))
    assert "order of near neighbours" in done.warnings[0]
    assert done.table.dtype == torch.float32


def broken(toy, result):
    class Broken(toy.ToyEncoder):
        def encode(self, batch, view="pooled"):
            return result(super().encode(batch, view))

    return Broken(toy.spec())


@pytest.mark.parametrize(
    ("result", "expected", "got"),
    [
        (lambda z: z[:-1], "shape [5, 8]", "shape [4, 8]"),
        (lambda z: z[:, :-1], "shape [5, 8]", "shape [5, 7]"),
        (lambda z: z[0], "shape [5, 8]", "shape [8]"),
        (lambda z: z[:, None], "shape [5, 8]", "shape [5, 1, 8]"),
        (lambda z: z.numpy(), "a Tensor", "a ndarray"),
        (lambda z: z.int(), "floating-point", "torch.int32"),
        (lambda z: z.sum(), "shape [5, 8]", "shape []"),
    ],
)
def test_an_encoder_that_breaks_its_contract_is_named(toy, store, result, expected, got):
    with pytest.raises(ContractError) as caught:
        run(toy, toy.ToyItems(toy.texts(5)), store, encoder=broken(toy, result))
    message = caught.value.message
    assert "Encoder 'toy'" in message and expected in message and got in message
    assert shard_paths(store) == []


def test_a_latent_that_is_not_finite_names_its_item(toy, store, small_shards):
    values = toy.texts(80)
    values[70] = "the culprit"

    class NaN(toy.ToyEncoder):
        def encode(self, batch, view="pooled"):
            latents = super().encode(batch, view)
            latents[["culprit" in item for item in batch[0]]] = torch.nan
            return latents

    with pytest.raises(ContractError, match=r"1 of \d items in torch.float32.*'the culprit'"):
        run(toy, toy.ToyItems(values), store, encoder=NaN(toy.spec()), batch_size=8)
    assert len(shard_paths(store)) == 1  # the shard before is kept


def test_an_encoder_may_use_its_output_buffer_again(toy, store):
    values, buffer = toy.texts(64), torch.empty(8, toy.DIM)
    encoder = broken(toy, lambda z: buffer.copy_(z))
    items = toy.ToyItems(values)
    done = run(toy, items, store, encoder=encoder, batch_size=8, store_dtype="float32")
    torch.testing.assert_close(done.table.rows(torch.arange(64)), expected(toy, values))
