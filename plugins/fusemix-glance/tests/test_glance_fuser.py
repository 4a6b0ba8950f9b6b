"""The fuser `glance`: its contract, and which moments and regions it finds."""

import pytest
import torch
from fusemix_glance.fuser import GlanceFuser
from fusemix_glance.teacher import Teacher

from fusemix_core.data.facts import Fact
from fusemix_core.errors import ConfigError
from fusemix_core.fuser import Labelled
from fusemix_core.interfaces import FitContext, Padded, PairedLatents
from fusemix_core.paired import ResidentTokens
from fusemix_core.tasks.classify import Classify
from fusemix_core.testing import check_fuser

SMALL = {"width": 16, "heads": 2, "dropout": 0.0}


@pytest.mark.slow
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


@pytest.mark.parametrize("options", [{"moments": 0}, {"layers": 0}, {"heads": 3}, {"guide": -1}])
def test_options_that_can_not_be(options):
    with pytest.raises(ConfigError, match="The fuser 'glance' has"):
        GlanceFuser({"image": 6}, 3, **{**SMALL, **options})


def test_the_teacher_leaves_out_the_clip_exactly():
    draw = torch.Generator().manual_seed(0)
    seen = torch.randn(6, 4, 5, generator=draw)
    labels, valid = torch.tensor([0, 1, 2, 0, 1, 2]), torch.ones(6, 4, dtype=torch.bool)
    teacher = Teacher({"image": seen.flatten(0, 1)}, 3)
    features = teacher.features({"image": seen}, valid)
    teacher.learn(iter([(features, labels)]))
    rest = features[1:].flatten(0, 1)
    responses = torch.nn.functional.one_hot(labels[1:], 3).double().repeat_interleave(4, dim=0)
    penalty = features.square().sum() / 24
    penalties = penalty.sqrt() * torch.eye(6, dtype=torch.float64)
    stacked = torch.cat([rest, penalties]), torch.cat([responses, responses.new_zeros(6, 3)])
    weights = torch.linalg.lstsq(*stacked).solution
    found = teacher.confidence(features, labels)
    torch.testing.assert_close(found[0], (features[0] @ weights)[:, 0].float())


def test_it_learns_from_classes_alone_which_silent_moments_matter():
    """Of four moments of two images one shows something else than grey: a colour of the class."""
    draw = torch.Generator().manual_seed(0)
    count = 240
    labels = torch.randint(2, (count,), generator=draw)
    where = torch.randint(8, (count,), generator=draw)
    images = 0.3 * torch.randn(count, 8, 3, generator=draw)
    images[torch.arange(count), where, 0] += 3
    images[torch.arange(count), where, 1] += 3.0 * (2 * labels - 1)
    table = {"image": ResidentTokens(images.flatten(0, 1), torch.full((count,), 8))}
    rows = torch.arange(count)
    pairs = PairedLatents(table, rows[:, None]).with_tokens(["image"])
    task = Classify(classes=["a", "b"])
    targets = task.targets({"target": Fact("class", labels.numpy(), ("a", "b"))})
    clips = Labelled(pairs, targets, rows)
    train, held_out = clips.select(rows[:200]), clips.select(rows[200:])
    fitted = GlanceFuser.fit(
        train, held_out, task, FitContext(), moments=4, **SMALL, training={"epochs": 25, "lr": 1e-2}
    ).fuser
    with torch.no_grad():
        found = fitted.glance({"image": held_out.latents("image")}, held_out.present)
    moments, regions = found.best(1)
    right = (2 * moments + regions)[:, 0] == where[200:]
    assert right.double().mean() > 0.9
