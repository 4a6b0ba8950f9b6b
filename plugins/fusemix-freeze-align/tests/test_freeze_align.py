"""Freeze-Align gives the original's numbers: see `parity/freeze_align/README.md`."""

import json
from pathlib import Path

import onnxruntime
import pytest
import torch
from fusemix_freeze_align.adapter import TokenProjectors
from fusemix_freeze_align.objective import TokenInfoNCE, token_loss
from safetensors.torch import load_file
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError
from fusemix_core.evaluation import similarity as sim
from fusemix_core.exports.onnx import Vectors
from fusemix_core.interfaces import Network, Padded, as_tokens
from fusemix_core.latents.exported import exported
from fusemix_core.objectives.infonce import InfoNCE
from fusemix_core.scorers.cosine import CosineScorer
from fusemix_core.step import Step
from fusemix_core.testing import check_adapter, check_objective

FOLDER = Path(__file__).parent / "parity/freeze_align"
META = json.loads((FOLDER / "meta.json").read_text())
HYPER = META["hyper"]
V = load_file(FOLDER / "vectors.safetensors")
CASES = ("tokens", "pooled_text", "max_pool")


def close(got, name):
    rule, want = META["tolerance"], V[name]
    allowed = max(rule["atol"] + rule["rtol"] * want.abs().max(), rule["overrides"].get(name, 0))
    assert (torch.as_tensor(got, dtype=torch.float64) - want).abs().max() <= allowed, name


def adapters_of(case):
    """Those of the case with its weights: names in the vectors → the adapter and its part."""
    how = HYPER[case]
    identity = how["cls_vision_projection"] == "identity"
    image = {
        "token": how["local_vision_projection"],
        "first": "skip" if identity else how["cls_vision_projection"],
        "pooling": how["vis_pooling"],
    }
    text = {"token": how["local_text_projection"], "pooled": how["text_projection"]}
    dim = V[f"{case}.out.embed_a"].shape[1]
    width = V[f"{case}.in.b_{'tokens' if how['text_pooling'] == 'mean' else 'pooled'}"].shape[-1]
    a = TokenProjectors(V[f"{case}.in.a_tokens"].shape[2], dim, **image, dropout=0.0).double()
    b = TokenProjectors(width, dim, **text, dropout=0.0).double()
    parts = {"a_token": a.token, "a_cls": a.cls, "b_token": b.token, "b_pooled": b.pooled}
    for name, part in parts.items():
        prefix = f"{case}.param.{name}."
        state = {k.removeprefix(prefix): v for k, v in V.items() if k.startswith(prefix)}
        if state:
            part.load_state_dict(state)
    return a, b, parts


@pytest.mark.parametrize("case", CASES)
def test_embeddings_and_pooled_loss(case):
    a, b, parts = adapters_of(case)
    if f"{case}.in.b_tokens" in V:
        words = Padded(V[f"{case}.in.b_tokens"], V[f"{case}.in.b_mask"].bool())
    else:
        words = as_tokens(V[f"{case}.in.b_pooled"])
    rows = {"image": a(as_tokens(V[f"{case}.in.a_tokens"])), "text": b(words)}
    for side, x in zip("ab", rows.values(), strict=True):
        close(normalize(x.detach(), dim=1), f"{case}.out.embed_{side}")
    objective = InfoNCE().double()
    objective.temperature.data = V[f"{case}.param.temp"].clone()
    loss = objective(Step.of(rows, torch.arange(2 * len(words)).reshape(-1, 1, 2)))
    loss.backward()
    close(loss.detach(), f"{case}.out.loss")
    close(objective.temperature.grad, f"{case}.grad.temp")
    for name, part in parts.items():
        for key, parameter in part.named_parameters() if part else ():
            close(parameter.grad, f"{case}.grad.{name}.{key}")


def fine():
    words = Padded(V["fine.in.b_tokens"].clone(), V["fine.in.b_mask"].bool())
    return as_tokens(V["fine.in.a_tokens"].clone()), words


def test_token_level_loss():
    places, words = fine()
    for x in (places, words):
        x.values.requires_grad_()
    summed, count = token_loss(places, words, HYPER["temp"], HYPER["fg"])
    (summed / count).backward()
    close((summed / count).detach(), "fine.out.loss")
    close(places.values.grad, "fine.grad.a_tokens")
    close(words.values.grad * V["fine.in.b_mask"][:, :, None], "fine.grad.b_tokens")


def test_centred_kernel_alignment():
    a, b = V["cka.in.a"], V["cka.in.b"]
    for name, sigma in (("linear", None), ("rbf_sigma2", 2.0), ("rbf_median", "median")):
        close(sim.cka(a, b, sigma=sigma, unbiased=False, tiny=0.0), f"cka.out.{name}")
    close(sim.local_cka(a, b, 8), "cka.out.local")
    for anchors in (0, len(a)):
        with pytest.raises(ConfigError, match="anchors"):
            sim.local_cka(a, b, anchors)


def test_padding_of_either_side_says_nothing_to_the_token_loss():
    places, words = fine()
    wanted = token_loss(places, words, 0.1)
    longer = (x.padded_to(x.values.shape[1] + 3) for x in (places, words))
    torch.testing.assert_close(token_loss(*longer, 0.1), wanted)
    full = (Padded(x.filled(torch.nan), x.mask) for x in (places, words))
    torch.testing.assert_close(token_loss(*full, 0.1), wanted)
    # An item without places has no part, one with a single place tells every word of it.
    none, one = places.mask.clone(), places.mask.clone()
    none[0], one[0, 1:] = False, False
    torch.testing.assert_close(
        token_loss(Padded(places.values, none), words, 0.1),
        token_loss(places[1:], words[1:], 0.1),
    )
    for x in (places, words):
        x.values.requires_grad_()
    loss, _ = token_loss(Padded(places.values, one), words, 0.1)
    loss.backward()
    assert places.values.grad.isfinite().all() and words.values.grad.isfinite().all()


@pytest.mark.parametrize("empty", ["places", "words"])
@pytest.mark.parametrize("length", [0, 3])
def test_without_any_place_or_word_the_token_loss_is_zero(empty, length):
    sides = dict(zip(("places", "words"), fine(), strict=True))
    whole = sides["places" if empty == "words" else "words"].values.requires_grad_()
    values = sides[empty].values[:, :length]
    sides[empty] = Padded(values, torch.zeros(values.shape[:2], dtype=torch.bool))
    summed, count = token_loss(**sides, temperature=0.1)
    assert summed == 0 and count == 0
    summed.backward()
    assert not whole.grad.any()


def test_the_objective_is_infonce_and_the_weighted_token_loss():
    draw = torch.Generator().manual_seed(0)
    rows = {m: torch.randn(6, 4, generator=draw) for m in ("image", "text")}
    places, words = (x.to(torch.float32) for x in fine())
    links = torch.arange(12).reshape(6, 1, 2)
    links[2, 0, 0] = -1
    objective = TokenInfoNCE(weight=0.5)
    loss = objective(Step.of(rows, links, tokens={"image": places, "text": words}))
    both = torch.tensor([0, 1, 3, 4, 5])
    summed, count = token_loss(places[both], words[both], 0.07)
    torch.testing.assert_close(loss, InfoNCE()(Step.of(rows, links)) + 0.5 * summed / count)
    assert objective.log()["token_loss"] == pytest.approx((summed / count).item())


@pytest.mark.parametrize("tokens", [{}, {"image": as_tokens(torch.ones(2, 3, 4))}])
def test_the_objective_asks_for_the_tokens_of_the_texts(tokens):
    rows = {m: torch.eye(4)[:2] for m in ("image", "text")}
    with pytest.raises(ConfigError, match="no tokens of the modality 'text'"):
        TokenInfoNCE()(Step.of(rows, torch.arange(4).reshape(2, 1, 2), tokens=tokens))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"token": "identity", "pooled": "patch"},
        {"token": "mlp", "pooled": "mlp"},
        {"pooling": "max"},
    ],
)
def test_contract_of_the_adapter(options):
    unequal = {"embedded_tokens": "tokens keep their width"}
    given = unequal if options.get("token") == "identity" else {}
    report = check_adapter("token-projectors", options=options, expected_failures=given)
    report.raise_if_failed()


def test_contract_of_the_objective():
    check_objective("token-infonce").raise_if_failed()


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_first_token_apart_is_no_part_of_the_pool(pooling):
    adapter = TokenProjectors(6, 4, first="patch", pooling=pooling, dropout=0.0)
    x = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, 0] = 7
    pooled = [adapter(as_tokens(rows)) - adapter.cls(rows[:, 0]) for rows in (x, other)]
    torch.testing.assert_close(*pooled)
    alone = adapter(as_tokens(x[:, 0]))  # a view of one row an item
    torch.testing.assert_close(alone, adapter.cls(x[:, 0]))
    assert adapter.tokens(as_tokens(x)).values.shape == (3, 4, 4)


def test_tokens_of_two_widths_are_not_compared():
    rows = {m: torch.eye(4)[:2] for m in ("image", "text")}
    tokens = {"image": as_tokens(torch.ones(2, 3, 6)), "text": as_tokens(torch.ones(2, 3, 4))}
    with pytest.raises(ConfigError, match="text are 4 wide"):
        TokenInfoNCE()(Step.of(rows, torch.arange(4).reshape(2, 1, 2), tokens=tokens))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TokenProjectors(4, 4, token="conv"),
        lambda: TokenProjectors(4, 4, pooling="sum"),
        lambda: TokenProjectors(4, 5, token="identity"),
        lambda: TokenInfoNCE(weight=-1.0),
        lambda: TokenInfoNCE(threshold=2.0),
    ],
)
def test_wrong_options_are_told(wrong):
    with pytest.raises(ConfigError):
        wrong()


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", pytest.param("max", marks=pytest.mark.long)])
def test_token_projectors_can_be_exported_to_onnx(pooling):
    torch.manual_seed(0)
    adapter = TokenProjectors(12, 8, first="patch", pooling=pooling, pooled="mlp").eval()
    module = Vectors(adapter, CosineScorer(), "image", ("image",), False).eval()
    mask = torch.arange(5) < torch.tensor([[5], [2], [1], [4]])
    given = {"tokens": torch.randn(4, 5, 12), "mask": mask}
    session = onnxruntime.InferenceSession(exported(Network(module, (0, 1)), given, ("vector",)))
    tokens, mask = torch.randn(3, 9, 12), torch.arange(9) < torch.tensor([[9], [3], [1]])
    (found,) = session.run(None, {"tokens": tokens.numpy(), "mask": mask.numpy()})
    expected = normalize(adapter(Padded(tokens, mask)), dim=1)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-5, rtol=0)
