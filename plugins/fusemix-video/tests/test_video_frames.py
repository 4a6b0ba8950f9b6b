"""fusemix-video: frames through an image encoder, its names, its memory, the learned pooling."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fusemix_video import frames, fusemix_components, fusemix_encoders
from fusemix_video.decoding import Video
from fusemix_video.frames import FrameEncoder
from fusemix_video.pooling import AttentionPoolAdapter
from fusemix_video.samples import moving_square, sample_videos, write_video
from fusemix_video.sampling import Sampling
from PIL import Image
from torch import Tensor

from fusemix_core.errors import ConfigError, DataError, UnknownNameError
from fusemix_core.interfaces import Encoder, Padded, as_tokens
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.saved.format1 import read_format1
from fusemix_core.specs import EncoderSpec
from fusemix_core.testing import check_adapter, check_encoder

CPU = torch.device("cpu")


class Colours(Encoder):
    """Mean colour and its square: an image encoder small enough to check by hand."""

    spec = EncoderSpec(
        name="colours-of-the-video-tests",
        modality="image",
        target=f"{__name__}:Colours",
        dim=3,
        views=("pooled", "pooled-square", "grid"),
        licence="Apache-2.0",
        requires={"numpy": "numpy"},
    )

    @classmethod
    def load(cls, spec, device, dtype):
        return cls()

    tiny = classmethod(lambda cls, spec: cls())

    def collate(self, items):
        rows = [np.asarray(item, np.float32).mean(axis=(0, 1)) / 255 for item in items]
        return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, 3)

    def encode(self, batch: Tensor, view: str = "pooled") -> Tensor:
        return batch**2 if view == "pooled-square" else batch


@pytest.fixture(autouse=True, scope="module")
def _registered():
    registry.add(Colours)
    yield
    registry._encoders.specs.pop(Colours.spec.name)
    registry._classes.pop(Colours.spec.name)


def make(suffix: str = "", image: str = Colours.spec.name) -> FrameEncoder:
    spec = registry.encoder(f"video:{image}{suffix}")
    return registry.target_of(spec).load(spec, CPU, torch.float32)


def by_hand(path: Path, sampling: Sampling) -> Tensor:
    """`[T, 3]`: the mean colours of the frames, one at a time."""
    with Video(path) as video:
        pictures = list(video.pictures(sampling.times(video.duration)))
    return torch.cat([Colours().collate([p]) for p in pictures])


# -- latents ---------------------------------------------------------------------------------------


def test_pooled_is_the_mean_over_frames_and_time_the_frames():
    encoder, videos = make(), list(sample_videos())
    batch = encoder.collate(videos)
    wanted = torch.stack([by_hand(path, Sampling(8)) for path in videos])
    torch.testing.assert_close(encoder.encode(batch, "time"), wanted)
    torch.testing.assert_close(encoder.encode(batch), wanted.mean(dim=1))


def test_variants_of_pooled():
    encoder = make(":4")
    assert encoder.spec.views == ("pooled", "time", "pooled-square", "time-square")
    batch = encoder.collate(list(sample_videos()[:2]))
    squares = encoder.encode(batch, "time") ** 2
    assert torch.equal(encoder.encode(batch, "time-square"), squares)
    torch.testing.assert_close(encoder.encode(batch, "pooled-square"), squares.mean(dim=1))


def test_by_rate_videos_differ_in_length():
    encoder, videos = make(":2fps"), list(sample_videos())
    got = encoder.encode(encoder.collate(videos), "time")
    assert isinstance(got, Padded) and got.values.shape[:2] == got.mask.shape
    lengths = got.mask.sum(dim=1).tolist()
    assert lengths == [len(by_hand(path, Sampling(rate=2))) for path in videos]
    assert len(set(lengths)) > 2 and min(lengths) == 1
    assert not got.values[~got.mask].any()
    for path, values, mask in zip(videos, got.values, got.mask, strict=True):
        torch.testing.assert_close(values[mask], by_hand(path, Sampling(rate=2)))


def test_what_is_not_held_is_decoded_again(monkeypatch):
    videos = list(sample_videos())
    wanted = make(":5").encode(make(":5").collate(videos), "time")
    monkeypatch.setattr(frames, "CHUNK", 3)
    for held in (0, 3, 9, 40):
        monkeypatch.setattr(frames, "HELD", held)
        encoder = make(":5")
        batch = encoder.collate(videos)
        assert len(batch.held) == min(held // 3, 14)
        assert torch.equal(encoder.encode(batch, "time"), wanted)


def test_an_hour_of_film_is_never_held(tmp_path, monkeypatch):
    """An hour at one frame a minute, sampled at 0.1 a second: no more than `HELD` and a chunk."""
    times = [60_000 * i for i in range(60)] + [3_599_960]
    film = write_video(tmp_path / "film.mkv", moving_square(61, (32, 32)), times=times)
    monkeypatch.setattr(frames, "CHUNK", 8)
    monkeypatch.setattr(frames, "HELD", 32)
    encoder = make(":0.1fps")
    alive, most = 0, 0

    class Counted(Image.Image):
        def __del__(self):
            nonlocal alive
            alive -= 1

    original = Video.pictures

    def pictures(self, times):
        nonlocal alive, most
        for picture in original(self, times):
            picture.__class__ = Counted
            alive += 1
            most = max(most, alive)
            yield picture

    monkeypatch.setattr(Video, "pictures", pictures)
    batch = encoder.collate([film])
    assert batch.counts == [360] and len(batch.held) == 4 and most <= 3 * 8
    got = encoder.encode(batch, "time")
    assert got.values.shape == (1, 360, 3) and most <= 3 * 8


def test_empty_batch():
    for suffix in ("", ":2fps"):
        encoder = make(suffix)
        batch = encoder.collate([])
        assert encoder.encode(batch).shape == (0, 3)
        time = encoder.encode(batch, "time")
        assert (time.values if isinstance(time, Padded) else time).shape[0] == 0


def test_refusals(tmp_path):
    encoder = make()
    with pytest.raises(TypeError, match="takes a Path, not str"):
        encoder.collate(["video.mp4"])
    with pytest.raises(ConfigError, match="no view 'tokens'"):
        encoder.encode(encoder.collate([]), "tokens")
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match="can't be decoded"):
        encoder.collate([sample_videos()[0], tmp_path / "bad.mp4"])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["", ":2fps"])
def test_conformance(suffix):
    check_encoder(f"video:{Colours.spec.name}{suffix}", device="cpu").raise_if_failed()


def test_pickle_and_miniature():
    pytest.importorskip("fusemix_timm")
    spec = registry.encoder("video:timm:resnet50:2")
    tiny = registry.target_of(spec).tiny(spec)
    assert tiny.spec.dim == tiny.image.spec.dim and not tiny.spec.weights
    assert len(pickle.dumps(tiny)) < 100_000
    latents = tiny.encode(tiny.collate(list(sample_videos()[:2])))
    assert latents.shape == (2, tiny.spec.dim)


# -- names and fingerprints ------------------------------------------------------------------------


def test_spec_is_the_image_encoders_but_for_what_it_reads():
    image = registry.encoder("efficientnet-lite0")
    spec = registry.encoder("video:efficientnet-lite0:16")
    assert (spec.modality, spec.takes, spec.dim) == ("video", "file", image.dim)
    assert (spec.weights, spec.sha256, spec.licence) == (image.weights, image.sha256, image.licence)
    assert spec.requires.items() >= image.requires.items() and "av" in spec.requires
    assert spec.options["frames"] == 16 and not spec.normalised


def test_fingerprints_follow_sampling_and_image_encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path))
    names = ["lite0", "lite0:8", "lite0:16", "lite0:2fps", "lite0:1fps", "efficientnet-lite2"]
    prints = [fingerprint(registry.encoder(f"video:{n}"), "float32") for n in names]
    assert prints[0] == prints[1] and None not in prints
    assert len(set(prints)) == len(prints) - 1
    assert fingerprint(registry.encoder("lite0"), "float32") not in prints


def test_fingerprint_follows_options_and_weights_of_the_image_encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path))
    name = Colours.spec.name
    prints = set()
    for spec in (Colours.spec, replace(Colours.spec, version="2")):
        registry._encoders.specs[name]["user"] = spec
        prints.add(fingerprint(registry.encoder(f"video:{name}"), "float32", "digest"))
    registry._encoders.specs[name]["user"] = Colours.spec
    for content in ("a", "b"):
        (tmp_path / content).write_text(content)
        prints.add(fingerprint(registry.encoder(f"video:{name}:4@{tmp_path / content}"), "float32"))
    assert len(prints) == 4 and None not in prints


def test_weights_by_path_reach_the_image_encoder(tmp_path):
    (tmp_path / "w").write_text("weights")
    spec = registry.encoder(f"video:{Colours.spec.name}:4@{tmp_path / 'w'}")
    inner = frames.image_spec(spec)
    assert inner.local and inner.weights == str(tmp_path / "w") and spec.options["frames"] == 4


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("video:", ConfigError, "names no image encoder"),
        ("video:minilm", ConfigError, "'minilm' takes text"),
        ("video:video:lite0", ConfigError, "takes file"),
        ("video:no-such-encoder", UnknownNameError, "no-such-encoder"),
    ],
)
def test_names_that_mean_nothing(name, error, match):
    with pytest.raises(error, match=match):
        registry.encoder(name)


def test_importing_the_plugin_is_light():
    code = (
        "import fusemix_video, sys; fusemix_video.fusemix_encoders();"
        "from fusemix_core.registry import registry; registry.encoder('video:efficientnet-lite0');"
        "assert not {'torch', 'numpy', 'av', 'PIL', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [getattr(s, "prefix", "") for s in fusemix_encoders()][0] == "video"


# -- learned pooling -------------------------------------------------------------------------------


def test_attention_pool_conformance():
    (spec,) = fusemix_components()
    check_adapter(spec).raise_if_failed()


def test_attention_pool_starts_as_the_mean():
    adapter = AttentionPoolAdapter(6, 5)
    x = torch.randn(3, 4, 6)
    torch.testing.assert_close(adapter(as_tokens(x)), adapter.out(x.mean(dim=1)))
    torch.testing.assert_close(adapter.attention(as_tokens(x)), torch.full((3, 4), 0.25))
    videos = Padded.of([x[0, :1], x[1], x[2, :2]])  # of one frame, of four, of two
    wanted = torch.tensor([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])
    torch.testing.assert_close(adapter.attention(videos), wanted)


def test_attention_pool_by_hand_and_its_gradient():
    adapter = AttentionPoolAdapter(4, 2).double()
    torch.nn.init.normal_(adapter.query)
    x = torch.randn(5, 3, 4, dtype=torch.float64, requires_grad=True)
    rows = []
    for steps in x:
        scores = torch.stack([adapter.norm(s) @ adapter.query / 2 for s in steps])
        rows.append(adapter.out(sum(a * s for a, s in zip(scores.softmax(0), steps, strict=True))))
    torch.testing.assert_close(adapter(as_tokens(x)), torch.stack(rows))
    assert torch.autograd.gradcheck(lambda x: adapter(as_tokens(x)), x)


def test_attention_pool_leaves_items_of_one_latent_to_the_affine_map():
    captions, x = AttentionPoolAdapter(384, 7), torch.randn(2, 384)
    torch.testing.assert_close(captions(as_tokens(x)), captions.out(x))


def test_attention_pool_of_models_whose_frames_came_as_one_row():
    old = AttentionPoolAdapter(3 * 4, 2, frames=3, dim=4)
    new, x = AttentionPoolAdapter(4, 2), torch.randn(5, 3, 4)
    torch.nn.init.normal_(old.query)
    new.load_state_dict(old.state_dict())
    for given in (x, x.flatten(1)):
        torch.testing.assert_close(old(as_tokens(given)), new(as_tokens(x)))
    captions = AttentionPoolAdapter(6, 7, frames=3, dim=4)  # of the same model
    assert list(captions.state_dict()) == ["out.weight", "out.bias"]
    x = torch.randn(2, 6)
    for given in (x, x.unflatten(1, (2, 3))):  # as layers
        torch.testing.assert_close(captions(as_tokens(given)), captions.out(x))


@pytest.mark.parametrize(
    ("options", "dim"),
    [
        ({}, 6),  # no query: what was then the default
        ({"frames": 1, "dim": 6}, 6),
        ({"frames": 3, "dim": 6}, 6),  # captions as wide as one frame
    ],
)
def test_attention_pool_of_format_1_without_frames_is_affine(options, dim):
    encoder = {"name": "an-encoder", "modality": "text", "dim": dim, "fingerprint": "f"}
    modality = {
        "encoder": {**encoder, "view": "pooled"},
        "adapter": {"name": "attention-pool", "options": options},
    }
    values = {
        "format": 1, "fusemix": "0.1.0", "dim": 2, "modalities": {"text": modality},
        "scorer": {"name": "cosine"}, "weights_sha256": "",
    }  # fmt: skip
    saved = read_format1(values).parts["adapter.text"]
    adapter = AttentionPoolAdapter(*saved.arguments, **saved.options)
    assert list(adapter.state_dict()) == ["out.weight", "out.bias"]
    x = torch.randn(2, dim)
    torch.testing.assert_close(adapter(as_tokens(x)), adapter.out(x))


@pytest.mark.parametrize("options", [{"frames": 8}, {"frames": -1}, {"frames": 2, "dim": -1}])
def test_attention_pool_refuses_impossible_options(options):
    with pytest.raises(ConfigError, match="attention-pool"):
        AttentionPoolAdapter(64, 8, **options)


def test_attention_pool_learns_which_frames_are_noise():
    """One frame in four tells what is wanted, marked by one feature; the others are loud noise."""
    draw = torch.Generator().manual_seed(0)
    n, steps, dim = 512, 4, 16
    wanted = torch.randn(n, 4, generator=draw)
    x = 2 * torch.randn(n, steps, dim, generator=draw)
    x[:, :, 0] = -2
    place = torch.randint(steps, (n,), generator=draw)
    signal = torch.zeros(n, dim)
    signal[:, 0], signal[:, 1:5] = 4, wanted
    x[torch.arange(n), place] = signal
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapter = AttentionPoolAdapter(dim, 4)
    optimiser = torch.optim.Adam(adapter.parameters(), lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        loss = (adapter(as_tokens(x)) - wanted).square().mean()
        loss.backward()
        optimiser.step()
    given = adapter.attention(as_tokens(x))[torch.arange(n), place]
    assert given.mean() > 0.95 and loss < 0.1
