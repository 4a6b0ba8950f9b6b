"""The fuser `rolling`: its contract, and what frames see of each other."""

import pytest
import torch
from fusemix_all_in_one.fuser import PLACES, RollingFuser

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded
from fusemix_core.testing import check_fuser


@pytest.mark.slow
def test_the_fuser_conforms():
    options = {"clip": "text", "width": 16, "heads": 2, "layers": 1, "dropout": 0.0}
    training = {"epochs": 8, "lr": 1e-2}
    check_fuser("rolling", options={**options, "training": training}).raise_if_failed()


def clips(*lengths, per_frame=1, width=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return Padded.of([torch.randn(n * per_frame, width, generator=draw) for n in lengths])


def fuser(**options):
    torch.manual_seed(0)
    made = RollingFuser({"video": 6, "text": 5}, 3, width=8, heads=2, **options).eval()
    for standard in made.standards:
        standard.scale.fill_(1.0)
        standard.longest.fill_(1e6)
    return made


def scores(made, video, text=None):
    text = text or clips(*[2] * len(video), width=5, seed=1)
    with torch.no_grad():
        return made({"video": video, "text": text}, torch.ones(len(video), 2, dtype=torch.bool))


def in_order(video, order):
    return Padded(video.values[:, order], video.mask[:, order])


@pytest.mark.parametrize(
    ("options", "backward", "turned"),
    [
        ({"roll": "none", "order": False}, True, True),
        ({"roll": "none", "order": True}, False, False),
        ({"roll": "default", "order": False}, False, True),
        ({"roll": "by-layer", "order": False}, False, True),
        ({"roll": "default", "order": True}, False, False),
    ],
)
def test_what_order_is_seen(options, backward, turned):
    """Whether a clip played backward, or begun in its middle, is the same to the fuser: rolling
    sees who is beside whom in a circle, the embeddings of places see where each is."""
    made, video = fuser(**options), clips(5, 5)
    wanted = scores(made, video)
    for order, same in (([4, 3, 2, 1, 0], backward), ([2, 3, 4, 0, 1], turned)):
        assert torch.allclose(scores(made, in_order(video, order)), wanted, atol=1e-5) == same


def test_rolling_changes_no_parameter():
    shapes = lambda made: {name: x.shape for name, x in made.state_dict().items()}  # noqa: E731
    assert shapes(fuser(roll="none")) == shapes(fuser(roll="default"))


def test_a_clip_is_scored_as_it_would_be_by_itself():
    made, video = fuser(per_frame=9), clips(2, 4, per_frame=9)
    found, text = scores(made, video), clips(2, 2, width=5, seed=1)
    alone = Padded(video.values[:1, :18], video.mask[:1, :18])
    torch.testing.assert_close(scores(made, alone, text[:1]), found[:1])


def test_longer_clips_share_the_embeddings_of_places():
    assert scores(fuser(), clips(PLACES + 9, 3)).isfinite().all()


def test_a_clip_of_another_number_of_tokens_is_refused():
    with pytest.raises(ConfigError, match="frames of 4"):
        scores(fuser(per_frame=4), clips(3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roll": "round"}, "no roll 'round'"),
        ({"per_frame": 0}, "per_frame=0"),
        ({"heads": 3}, "heads=3"),
    ],
)
def test_options_that_can_not_be(options, message):
    with pytest.raises(ConfigError, match=message):
        RollingFuser({"video": 6}, 3, **{"width": 8, "heads": 2, **options})
