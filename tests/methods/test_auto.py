"""The aligner `auto`: its stages, its budget, and that the best so far is always a model."""

import pytest
import torch

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.aligners import auto as auto_aligner
from fusemix_core.aligners import complement
from fusemix_core.aligners.auto import AutoAligner
from fusemix_core.aligners.budget import Budget
from fusemix_core.aligners.cca import CCAAligner
from fusemix_core.aligners.judge import Judge
from fusemix_core.aligners.recalls import gain, hits_of, mean_recall, recalls
from fusemix_core.aligners.scale import SCALES
from fusemix_core.context import Callback
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents
from fusemix_core.overrides import override_recipe
from fusemix_core.recipes.auto import auto

SMALL = [
    "adapter.hidden=64",
    "training.batch_size=64",
    "training.evaluate_steps=20",
    "training.lr=0.005",
    "training.patience=3",
    "dim=32",
]


def split(n, seed, folded, modalities=2):
    """Pairs of 8 hidden causes. `folded` modalities after the first see only their absolute values,
    so that no linear map finds a partner."""
    g, mix = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(5)
    causes = torch.randn(n, 8, generator=g)
    tables = {}
    for k in range(modalities):
        seen = causes.abs() - 0.8 if folded and k else causes
        wide = seen @ torch.randn(8, 20 + k, generator=mix)
        tables[f"m{k}"] = ResidentLatents(wide + 0.1 * torch.randn(n, 20 + k, generator=g))
    return PairedLatents(tables, torch.arange(n)[:, None].repeat(1, modalities))


def fit(data, *changes, context=None, **options):
    recipe = override_recipe(auto(), [*SMALL, *changes])
    return AutoAligner(**options).fit(*data, recipe, context or FitContext())


def found(adapters, data):
    return mean_recall(recalls(adapters, data))


class Heard(Callback):
    def __init__(self):
        self.evaluations, self.stages = [], []

    def on_stage(self, text):
        self.stages.append(text)

    def on_evaluation(self, step, metrics):
        self.evaluations.append((step, dict(metrics)))


@pytest.fixture(autouse=True)
def networks_for_few_pairs(monkeypatch):
    monkeypatch.setattr(auto_aligner, "LEAST", 100)


@pytest.fixture(scope="module")
def folded():
    return split(1_500, 0, True), split(300, 1, True)


@pytest.fixture(scope="module")
def straight():
    return split(300, 0, False), split(100, 1, False)


def test_a_network_is_mixed_in_where_it_finds_more(folded):
    few = 40
    closed = fit(folded, "adapter=none", landmarks=few)
    heard = Heard()
    mixed = fit(folded, budget="200 steps", landmarks=few, context=FitContext(callbacks=[heard]))
    assert heard.stages[-1].startswith("The network is kept, with a share of ")
    assert all(isinstance(a, KernelAdapter) for a in closed.values())
    assert not any(isinstance(a, KernelAdapter) for a in mixed.values())
    test = split(300, 2, True)
    assert found(mixed, test) > found(closed, test) + 0.1


def test_a_network_that_adds_nothing_is_left_out(straight):
    heard = Heard()
    adapters = fit(straight, budget="60 steps", context=FitContext(callbacks=[heard]))
    assert heard.stages[-1].startswith("The closed form is kept: the network adds")
    assert all(isinstance(a, KernelAdapter) for a in adapters.values())


@pytest.mark.parametrize(
    ("pairs", "units"), [(2, 128), (1_103, 128), (10_000, 512), (26_000, 2_048), (5_000_000, 2_048)]
)
def test_a_wide_network_has_units_for_the_pairs(pairs, units):
    sized = complement.sized(auto(), pairs)
    assert sized.adapter.options == {"dropout": 0.3, "hidden": units}
    own = override_recipe(auto(), ["adapter.hidden=7", "adapters.text=mlp"])
    assert complement.sized(own, pairs).adapter.options["hidden"] == 7
    assert complement.sized(own, pairs).adapters == own.adapters


def test_few_pairs_train_no_network(straight, monkeypatch):
    monkeypatch.setattr(auto_aligner, "LEAST", 301)
    heard = Heard()
    fit(straight, context=FitContext(callbacks=[heard]), landmarks=0)
    assert all(not step for step, _ in heard.evaluations)


def test_without_an_adapter_it_is_the_better_closed_form(folded):
    adapters = fit(folded, "adapter=none", landmarks=100)
    tried = [CCAAligner(landmarks=n).fit(*folded, auto(), FitContext()) for n in (0, 100)]
    best = max(tried, key=lambda one: found(one, folded[1]))
    for modality, adapter in adapters.items():
        assert torch.equal(adapter.weight, best[modality].weight)


def test_the_same_budget_of_steps_gives_the_same_model(folded):
    first, second = (fit(folded, budget="40 steps", landmarks=0) for _ in range(2))
    for modality in first:
        for name, value in first[modality].state_dict().items():
            assert torch.equal(value, second[modality].state_dict()[name])


def test_training_ends_with_its_budget_of_steps(folded):
    heard = Heard()
    context = FitContext(callbacks=[heard])
    fit(folded, context=context, budget="40 steps", landmarks=0)
    assert max(step for step, _ in heard.evaluations) == 40


def test_training_ends_when_more_gains_nothing(straight):
    heard = Heard()
    fit(straight, context=FitContext(callbacks=[heard]), landmarks=0)
    closed = max(m["score"] for step, m in heard.evaluations if not step)
    trained = [(step, m) for step, m in heard.evaluations if step]
    assert [step for step, _ in trained] == [20, 40, 60]
    assert all(m["score"] <= closed + m["noise"] for _, m in trained)


def test_a_time_that_is_over_leaves_the_linear_map(folded, monkeypatch):
    heard = Heard()
    monkeypatch.setattr(Budget, "allows", lambda *_, **__: False)
    adapters = fit(folded, context=FitContext(callbacks=[heard]), budget="90s")
    assert all(not len(a.landmarks) for a in adapters.values())
    assert all(not step for step, _ in heard.evaluations)


@pytest.mark.parametrize(
    ("budget", "rate", "landmarks"),
    [
        ("", 1, 4_096),
        ("9 steps", 1, 4_096),
        ("100s", 1e12, 4_096),
        ("100s", 4e9, 2_048),
        ("100s", 2e8, 512),
        ("100s", 1e7, 0),
    ],
)
def test_the_kernel_has_the_landmarks_that_there_is_time_for(budget, rate, landmarks, monkeypatch):
    monkeypatch.setattr(auto_aligner, "products_per_second", lambda device: rate)
    train = PairedLatents(
        {m: ResidentLatents(torch.zeros(1, 400)) for m in "ab"},
        torch.zeros(10_000, 2, dtype=torch.long),
    )
    how = Budget.of(budget), SCALES[-1], torch.device("cpu")
    assert AutoAligner()._landmarks(train, *how) == landmarks


class Interrupting(Callback):
    """Ctrl-C after so many steps, or after so many passes of a closed form."""

    def __init__(self, stop, steps=None, passes=None):
        self.stop, self.steps, self.passes = stop, steps, passes
        self.cut_short = []

    def on_cut_short(self, why):
        self.cut_short.append(why)

    def on_step(self, step, metrics):
        if step == self.steps:
            raise self.stop

    def on_pairs(self, done, total):
        if self.passes is not None and done == total:
            self.passes -= 1
            if self.passes == 0:
                raise self.stop


class Terminated(KeyboardInterrupt):
    pass


def test_ctrl_c_while_training_leaves_the_best_so_far(folded):
    few = 40
    stopped = FitContext(callbacks=[Interrupting(KeyboardInterrupt, steps=101)])
    adapters = fit(folded, context=stopped, landmarks=few)
    assert stopped.callbacks[0].cut_short == [complement.INTERRUPTED]
    assert found(adapters, folded[1]) > found(fit(folded, "adapter=none", landmarks=few), folded[1])


def test_ctrl_c_in_the_kernels_pass_leaves_the_linear_map(folded):
    stopped = FitContext(callbacks=[Interrupting(KeyboardInterrupt, passes=2)])
    adapters = fit(folded, context=stopped)
    assert all(not len(a.landmarks) for a in adapters.values())
    assert stopped.callbacks[0].cut_short == [complement.INTERRUPTED]


@pytest.mark.parametrize("where", [{"steps": 30}, {"passes": 2}])
def test_what_is_more_than_ctrl_c_goes_up(folded, where):
    stopped = FitContext(callbacks=[Interrupting(Terminated, **where)])
    with pytest.raises(Terminated):
        fit(folded, context=stopped, landmarks=40)


def test_ctrl_c_before_there_is_any_model_goes_up(folded):
    stopped = FitContext(callbacks=[Interrupting(KeyboardInterrupt, passes=1)])
    with pytest.raises(KeyboardInterrupt):
        fit(folded, context=stopped)


def test_a_killed_fit_resumes_to_the_same_model(folded, tmp_path):
    few = 40
    whole = fit(folded, budget="60 steps", landmarks=few)
    stopped = FitContext(checkpoints=tmp_path, callbacks=[Interrupting(Terminated, steps=45)])
    with pytest.raises(Terminated):
        fit(folded, context=stopped, budget="60 steps", landmarks=few)
    resumed = FitContext(checkpoints=tmp_path, resume=True)
    again = fit(folded, context=resumed, budget="60 steps", landmarks=few)
    for modality in whole:
        for name, value in whole[modality].state_dict().items():
            assert torch.equal(value, again[modality].state_dict()[name])


def test_a_network_that_diverges_leaves_the_closed_form(straight):
    broken = ["training.lr=1e30", "training.warmup_steps=0", "training.clip_norm=none"]
    adapters = fit(straight, *broken, landmarks=0)
    assert all(isinstance(a, KernelAdapter) for a in adapters.values())


def test_an_adapter_of_tokens_is_refused_before_training(straight):
    heard = Heard()
    with pytest.raises(ConfigError, match="tokens"):
        fit(straight, "adapter=attention-pool", context=FitContext(callbacks=[heard]), landmarks=0)


def test_three_modalities_are_mixed(monkeypatch):
    data = split(600, 0, True, 3), split(150, 1, True, 3)
    monkeypatch.setattr(complement, "SCORED", 100)
    adapters = fit(data, budget="60 steps", landmarks=20)
    assert set(adapters) == {"m0", "m1", "m2"}
    widths = {a(torch.zeros(1, 20 + k)).shape[1] for k, a in enumerate(adapters.values())}
    assert len(widths) == 1


def test_fixed_modalities_are_fitted_to_in_closed_form(straight):
    given = fit(straight, "adapter=none")["m0"]
    adapters = fit(straight, context=FitContext(fixed={"m0": given}))
    assert adapters["m0"] is given
    assert isinstance(adapters["m1"], KernelAdapter)


def test_a_validation_split_without_pairs_leaves_the_closed_form(straight):
    train, validation = straight
    adapters = fit((train, validation.select(torch.zeros(0, dtype=torch.long))))
    assert all(isinstance(a, KernelAdapter) for a in adapters.values())


@pytest.mark.parametrize("text", ["10", "ten minutes", "-3s", "0s", "5 steps ago", "1e9s"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ConfigError, match="budget"):
        AutoAligner(budget=text)


@pytest.mark.parametrize(
    ("text", "seconds", "steps"),
    [
        ("90s", 90, None),
        ("1.5h", 5_400, None),
        ("10 m", 600, None),
        ("2000 steps", None, 2_000),
        ("1 step", None, 1),
        ("", None, None),
    ],
)
def test_budgets_are_times_or_steps(text, seconds, steps):
    budget = Budget.of(text)
    inf = float("inf")
    assert (budget.seconds, budget.steps) == (seconds or inf, steps or inf)


def test_gain_and_its_error_are_those_of_paired_differences():
    train, validation = split(200, 0, False), split(60, 1, False)
    two = [CCAAligner(landmarks=n).fit(train, validation, auto(), FitContext()) for n in (0, 20)]
    hits = []
    for adapters in two:
        units = {
            m: torch.nn.functional.normalize(a(validation.tables[m].latents), dim=1).detach()
            for m, a in adapters.items()
        }
        hits.append(hits_of(units, validation))
    means, errors = [], []
    for pair in hits[0]:
        own = [
            sum(float(a[q, k]) - float(b[q, k]) for k in range(3)) / 3
            for a, b in [(hits[0][pair], hits[1][pair])]
            for q in range(len(a))
        ]
        mean = sum(own) / len(own)
        means.append(mean)
        errors.append((sum((v - mean) ** 2 for v in own) / len(own) ** 2) ** 0.5)
    more, error = gain(*hits)
    assert more == pytest.approx(sum(means) / 2)
    assert error == pytest.approx(sum(errors) / 2)
    assert more == pytest.approx(found(two[0], validation) - found(two[1], validation))


def test_a_mixture_finds_what_its_embeddings_side_by_side_find():
    validation = split(60, 1, False)
    validation = PairedLatents(validation.tables, validation.links[torch.arange(60) // 2 * 2 + 0])
    g = torch.Generator().manual_seed(3)
    units = [
        {m: torch.nn.functional.normalize(torch.randn(30, d, generator=g)) for m in ("m0", "m1")}
        for d in (4, 6)
    ]
    judge = Judge(validation, FitContext())
    for share, hits in zip((0.2, 0.9), judge.hits_mixed(*units, (0.2, 0.9)), strict=True):
        beside = {
            m: torch.cat([(1 - share) ** 0.5 * units[0][m], share**0.5 * units[1][m]], 1)
            for m in units[0]
        }
        wanted = judge.hits(beside)
        assert hits.keys() == wanted.keys()
        assert all(torch.equal(hits[pair], wanted[pair]) for pair in hits)
