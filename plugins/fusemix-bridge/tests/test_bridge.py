"""The fuser `cross` and the adapter `layer-mixer`: their contracts, and what their options do."""

import pytest
import torch
from fusemix_bridge.fuser import MANAGERS, CrossFuser
from fusemix_bridge.managers import Bridge, StaticManager
from fusemix_bridge.mixer import LayerMixer

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded
from fusemix_core.testing import check_adapter, check_fuser

SMALL = {"width": 16, "heads": 2, "depth": 2, "training": {"epochs": 4, "lr": 2e-2}}


@pytest.mark.slow
@pytest.mark.parametrize("manager", ["bridge", "adaptive"])
def test_the_fuser_conforms(manager):
    check_fuser("cross", options={**SMALL, "manager": manager}).raise_if_failed()


def test_the_mixer_conforms():
    check_adapter("layer-mixer").raise_if_failed()


def tokens(rows, count, width, seed=0):
    made = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, count, dtype=torch.bool)
    mask[0, 1:] = False
    return Padded(torch.randn(rows, count, width, generator=made), mask)


@pytest.mark.parametrize("manager", MANAGERS)
def test_neither_padding_nor_what_is_missing_is_seen(manager):
    torch.manual_seed(0)
    fuser = CrossFuser({"image": 12, "text": 8}, 3, manager=manager, layers=2, width=8, heads=2)
    fuser.eval()
    given = {"image": tokens(4, 3, 12), "text": tokens(4, 5, 8, 1)}
    for standard, latents in zip(fuser.standards, given.values(), strict=True):
        standard.learn(latents.values[latents.mask])
    present = torch.tensor([[True, True], [True, True], [True, False], [False, True]])
    scores = fuser(given, present)
    assert scores.isfinite().all()
    other = {
        m: Padded(torch.where(x.mask[..., None], x.values, 99.0), x.mask) for m, x in given.items()
    }
    other["text"].values[2], other["image"].values[3] = 77.0, -77.0
    assert torch.equal(fuser(other, present), scores)
    changed = {m: Padded(x.values.clone(), x.mask) for m, x in given.items()}
    changed["text"].values[1] += 1
    assert not torch.allclose(fuser(changed, present)[1], scores[1])


def test_bridges_take_later_layers_up_to_the_last():
    of = lambda layers, depth: [  # noqa: E731
        stage[0].layer
        for stage in CrossFuser({"a": layers * 4}, 1, layers=layers, depth=depth, width=8).managers
    ]
    assert of(6, 3) == [3, 4, 5] and of(2, 3) == [0, 0, 1]
    last = CrossFuser({"a": 8}, 1, manager="last", layers=2, width=8)
    assert all(isinstance(s[0], Bridge) and s[0].layer == -1 for s in last.managers)


def test_weights_of_layers_start_even_and_are_told():
    fuser = CrossFuser({"a": 12, "b": 12}, 1, manager="static", layers=3, width=8)
    told = fuser.layer_weights()
    assert set(told) == {"a", "b"} and len(told["a"]) == 2
    torch.testing.assert_close(told["a"][0], torch.full((3,), 1 / 3))
    first, later = (stage[0] for stage in fuser.managers)
    assert isinstance(first, StaticManager) and len(first.scores) == 3 and len(later.scores) == 4


def test_noise_is_for_training_only():
    manager = StaticManager(3, 4, first=True)
    layers, empty = torch.randn(2, 3, 5, 4), torch.empty(2, 0, 4)
    seen = torch.empty(2, 0, dtype=torch.bool)
    assert not torch.equal(manager(layers, None, empty, seen), manager(layers, None, empty, seen))
    manager.eval()
    assert torch.equal(manager(layers, None, empty, seen), manager(layers, None, empty, seen))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"manager": "boss"}, "no manager 'boss'"),
        ({"heads": 3}, "heads=3"),
        ({"layers": 5}, "not 5 layers of one width"),
        ({"depth": 0}, "depth=0"),
    ],
)
def test_options_that_can_not_be(options, message):
    with pytest.raises(ConfigError, match=message):
        CrossFuser({"image": 12, "text": 8}, 3, **options)


def test_a_mixture_of_layers_by_the_definition():
    torch.manual_seed(0)
    mixer = LayerMixer(6, 4, most=5)
    torch.nn.init.normal_(mixer.scores)
    rows = torch.randn(3, 2, 6)
    given = Padded(rows, torch.ones(3, 2, dtype=torch.bool))
    weights = mixer.scores[:2].exp() / mixer.scores[:2].exp().sum(0)
    torch.nn.init.normal_(mixer.gains)
    norms = [torch.nn.LayerNorm(6) for _ in range(2)]
    for norm, gain in zip(norms, mixer.gains, strict=False):
        norm.weight.data = gain.data
    wanted = mixer.out(sum(weights[i] * norms[i](rows[:, i]) for i in range(2)))
    torch.testing.assert_close(mixer(given), wanted)
    torch.testing.assert_close(mixer.weights(2), weights)
    with pytest.raises(ConfigError, match="most=6"):
        mixer(Padded(torch.randn(1, 6, 6), torch.ones(1, 6, dtype=torch.bool)))
