"""The adapters `mixture` and `wide`."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, gelu, normalize

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.adapters.mixture import MixtureAdapter, as_member
from fusemix_core.adapters.wide import WideAdapter
from fusemix_core.errors import ConfigError
from fusemix_core.registry import registry
from fusemix_core.saved.components import Built, check_rebuilt

MEMBERS = [
    {"name": "kernel", "dim": 5, "options": {"landmarks": 3}},
    {"name": "wide", "dim": 7, "options": {"hidden": 11}},
]


def latents(n=9, width=6, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def mixture():
    torch.manual_seed(0)
    made = MixtureAdapter(6, 12, members=MEMBERS)
    for member in made.members:
        member.prepare(latents(20, seed=1))
    made.weights.copy_(torch.tensor([0.3, 0.7]))
    return made.eval()


def test_its_cosine_is_the_weighted_mean_of_its_members(mixture):
    x, y = latents(), latents(seed=2)
    parts = [cosine_similarity(m(x), m(y)) for m in mixture.members]
    wanted = 0.3 * parts[0] + 0.7 * parts[1]
    torch.testing.assert_close(cosine_similarity(mixture(x), mixture(y)), wanted)
    torch.testing.assert_close(mixture(x).norm(dim=1), torch.ones(9))


def test_a_member_of_share_0_has_no_part_in_it(mixture):
    mixture.weights.copy_(torch.tensor([0.0, 1.0]))
    x, y = latents(), latents(seed=2)
    alone = cosine_similarity(mixture.members[1](x), mixture.members[1](y))
    torch.testing.assert_close(cosine_similarity(mixture(x), mixture(y)), alone)


def test_members_learn(mixture):
    mixture.train()(latents()).square().mul(torch.arange(12.0)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mixture.parameters())


def test_its_saved_form_gives_the_same_embeddings(mixture):
    saved = Built(mixture, (6, 12)).saved("adapter", registry)
    assert saved.options == {"members": MEMBERS}
    check_rebuilt("adapter", mixture, saved, registry)


def test_a_member_is_known_by_its_registered_name():
    adapter = KernelAdapter(6, 5, landmarks=3)
    assert as_member(adapter, 6) == MEMBERS[0]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([], "0 wide together"),
        ([{"name": "linear", "dim": 11}], "11 wide together"),
        ([{"name": "linear"}], "each is a table"),
        (["linear"], "each is a table"),
        ([{"name": "linear", "dim": 12.0}], "each is a table"),
        ([{"name": "linear", "dim": 12, "more": 1}], "each is a table"),
        ([{"name": "linaer", "dim": 12}], "linear"),
    ],
)
def test_what_is_no_mixture_is_refused(members, says):
    with pytest.raises(ConfigError) as error:
        MixtureAdapter(6, 12, members=members)
    assert says in f"{error.value.message} {error.value.hint}".lower()


def test_the_wide_adapter_is_a_hidden_layer_on_standardised_latents():
    torch.manual_seed(0)
    adapter = WideAdapter(6, 4, hidden=10, dropout=0.5).eval()
    train = latents(50, seed=1)
    adapter.prepare(train)
    unit = normalize(train, dim=1)
    scale = (unit - unit.mean(0)).square().sum(1).mean().sqrt()
    x = latents()
    u = (normalize(x, dim=1) - unit.mean(0)) / scale * 6**0.5
    wanted = adapter.fc2(gelu(adapter.fc1(u)))
    torch.testing.assert_close(adapter(x), wanted)


def test_the_gradients_of_the_wide_adapter_are_those_of_its_formula():
    torch.manual_seed(0)
    adapter = WideAdapter(6, 4, hidden=10, dropout=0.0)
    adapter.prepare(latents(50, seed=1))
    x, weights = latents(), torch.randn(9, 4)
    (adapter(x) * weights).sum().backward()
    found = [p.grad.clone() for p in adapter.parameters()]
    adapter.zero_grad()
    u = adapter.standard(x) * 6**0.5
    (adapter.fc2(gelu(adapter.fc1(u))) * weights).sum().backward()
    for own, parameter in zip(found, adapter.parameters(), strict=True):
        torch.testing.assert_close(own, parameter.grad)


@pytest.mark.parametrize("options", [{"hidden": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="wide adapter"):
        WideAdapter(6, 4, **options)
