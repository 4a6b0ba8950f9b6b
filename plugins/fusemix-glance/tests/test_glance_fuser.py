"""The fuser `glance`: its contract, and which moments and regions it finds."""

import pytest
import torch
from fusemix_glance.fuser import GlanceFuser

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded
from fusemix_core.testing import check_fuser

SMALL = {"width": 16, "heads": 2, "dropout": 0.0}


def test_the_fuser_conforms():
    training = {"epochs": 8, "lr": 1e-2}
    options = {**SMALL, "seen": "text", "moments": 1, "training": training}
    check_fuser("glance", options=options).raise_if_failed()


def fuser(moments=3):
    torch.manual_seed(0)
    made = GlanceFuser({"image": 6, "audio": 4}, 3, moments=moments, **SMALL).eval()
    for standard in made.standards:
        standard.scale.fill_(1.0)
        standard.longest.fill_(1e6)
    return made


def tokens(*counts, width, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return Padded.of([torch.randn(n, width, generator=draw) for n in counts])


def given(regions=2, moments=3, clips=2):
    return {
        "image": tokens(*[regions * moments] * clips, width=6),
        "audio": tokens(*[moments] * clips, width=4, seed=1),
    }


BOTH = torch.ones(2, 2, dtype=torch.bool)


def test_shares_add_up_and_the_best_come_first():
    found = fuser().glance(given(), BOTH)
    torch.testing.assert_close(found.saliency.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(found.regions.sum(dim=2), torch.ones(2, 3))
    moments, regions = found.best(2)
    assert found.saliency.gather(1, moments).diff(dim=1).le(0).all()
    for clip, (when, where) in enumerate(zip(moments.tolist(), regions.tolist(), strict=True)):
        for t, r in zip(when, where, strict=True):
            assert found.regions[clip, t].argmax() == r
    assert found.best(99)[0].shape == (2, 3)


def test_a_sound_changes_only_the_region_of_its_own_moment():
    made, one = fuser(), given()
    other = {m: Padded(x.values.clone(), x.mask) for m, x in one.items()}
    other["audio"].values[:, 1] += 5
    before, after = (made.glance(x, BOTH).regions for x in (one, other))
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_without_sound_it_looks_all_the_same():
    found = fuser().glance(given(), torch.tensor([[True, False]] * 2))
    assert found.saliency.isfinite().all() and (found.regions.sum(dim=2) > 0.99).all()


def test_without_frames_the_sound_says_when_and_no_region_counts():
    found = fuser().glance(given(), torch.tensor([[False, True]] * 2))
    assert found.saliency.std() > 0 and not found.regions.any()


def test_one_token_belongs_to_the_whole_clip():
    made, latents = fuser(), given()
    latents["audio"] = tokens(1, 1, width=4)
    repeated = Padded(latents["audio"].values.expand(-1, 3, -1), BOTH[:, :1].expand(-1, 3))
    with torch.no_grad():
        found, wanted = (made({**latents, "audio": x}, BOTH) for x in (latents["audio"], repeated))
    torch.testing.assert_close(found, wanted)


def test_tokens_of_another_number_of_moments_are_refused():
    with pytest.raises(ConfigError, match="aren't those of 3 moments"):
        fuser().glance(given(moments=4, regions=1), BOTH)


@pytest.mark.parametrize("options", [{"moments": 0}, {"layers": 0}, {"heads": 3}])
def test_options_that_can_not_be(options):
    with pytest.raises(ConfigError, match="The fuser 'glance' has"):
        GlanceFuser({"image": 6}, 3, **{**SMALL, **options})
