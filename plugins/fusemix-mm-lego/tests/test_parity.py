"""Blocks, merges and fusing give the original's numbers; `parity/mm_lego/README.md` says where they
come from."""

import json
from pathlib import Path

import pytest
import torch
from fusemix_mm_lego.blocks import Block, Head, real
from fusemix_mm_lego.fusing import stacked, woven
from fusemix_mm_lego.merging import harmonic_pair, merged, merged_heads
from safetensors.torch import load_file
from torch.func import functional_call

FOLDER = Path(__file__).parent / "parity/mm_lego"
META = json.loads((FOLDER / "meta.json").read_text())
HYPER = META["hyper"]
V = load_file(FOLDER / "vectors.safetensors")
OPTIONS = {
    "frequency_domain": "frequency",
    "track_imaginary": "imaginary",
    "normalise": "normalise",
    "weight_sharing": "own_layers",
}
"""Names of the original → those of `Block`. Its weight sharing gives each pass its own layer."""
CASES = [name for name, value in HYPER.items() if isinstance(value, dict)]
ALPHA = HYPER["alpha"]


def close(got, name):
    rule, want = META["tolerance"], V[name]
    got = torch.view_as_real(got) if got.is_complex() else got
    assert got.shape == want.shape, name
    assert (got - want).abs().max() <= rule["atol"] + rule["rtol"] * want.abs().max(), name


def under(prefix):
    found = {k.removeprefix(prefix): v for k, v in V.items() if k.startswith(prefix)}
    return {f"layers.{k[5:]}" if k.startswith("layer") else k: v for k, v in found.items()}


def block_of(case, **options):
    given = {OPTIONS[k]: v for k, v in HYPER[case].items() if k in OPTIONS}
    block = Block(
        HYPER[f"d{case[0]}"],
        HYPER["classes"],
        channels=HYPER["lc"],
        latent_width=HYPER["ld"],
        depth=HYPER["depth"],
        heads=HYPER["heads"],
        head_width=HYPER["dh"],
        **given,
    ).double()
    block.load_state_dict(under(f"{case}.param."))
    return block


def head_of(prefix):
    head = Head(HYPER["ld"], HYPER["classes"]).double()
    head.load_state_dict(under(prefix))
    return head


def inputs(kind, count):
    found = [V[f"merge.in.{kind}.latent{k}"] for k in range(count)]
    return [torch.view_as_complex(x.contiguous()) if kind == "complex" else x for x in found]


def test_there_are_six_cases():
    assert len(CASES) == 6 and META["source"]["commit"].startswith("c44919b")


@pytest.mark.parametrize("case", CASES)
def test_latents_scores_and_gradients_of_a_block(case):
    block = block_of(case)
    latent = block(V[f"block.in.{case[0]}"])
    scores = block.head(latent)
    close(real(latent), f"{case}.out.latent")
    close(scores, f"{case}.out.logits")
    if latent.is_complex():
        close(latent, f"{case}.out.latent_complex")
    scores.square().sum().backward()
    prefix = f"{case}.grad_sum_square."
    wanted = under(prefix)
    for name, parameter in block.named_parameters():
        if name in wanted:
            original = name.replace("layers.", "layer")
            close(parameter.grad, prefix + original)
        else:
            assert ".mod_attn." in name and parameter.grad is None


@pytest.mark.parametrize("kind", ["complex", "real"])
@pytest.mark.parametrize("how", ["sum", "mean", "product", "harmonic"])
def test_merged_latents_and_their_scores(kind, how):
    weights = merged_heads([head_of(f"merge.param.head{k}.") for k in range(2)], "published", ALPHA)
    for count in (2,) if how == "harmonic" else (2, 3):
        given = inputs(kind, count)
        if how == "harmonic":
            latent = harmonic_pair(*given, ALPHA)
        else:
            present = torch.ones(len(given[0]), count, dtype=torch.bool)
            latent = merged(torch.stack(given), present, how)
        close(latent, f"merge.out.{kind}.{how}{count}")
        head = Head(HYPER["ld"], HYPER["classes"]).double()
        close(functional_call(head, weights, latent), f"merge.logits.{kind}.{how}{count}")


@pytest.mark.parametrize("how", ["sum", "harmonic"])
def test_scores_of_merged_blocks(how):
    blocks = {side: block_of(f"{side}_default") for side in "ab"}
    latents = [block(V[f"block.in.{side}"]) for side, block in blocks.items()]
    heads = [block.head for block in blocks.values()]
    weights = merged_heads(heads, "published", ALPHA)
    present = torch.ones(len(latents[0]), 2, dtype=torch.bool)
    latent = (
        harmonic_pair(*latents, ALPHA)
        if how == "harmonic"
        else merged(torch.stack(latents), present, how)
    )
    close(functional_call(heads[0], weights, latent), f"merge_blocks.out.{how}")


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_merged_heads(alpha):
    heads = [head_of(f"merge.param.head{k}.") for k in range(2)]
    for name, value in merged_heads(heads, "published", alpha).items():
        close(value, f"heads.out.slerp_{alpha}.{name}")
    for name, value in merged_heads(heads, "linear", 1 - alpha).items():
        close(value, f"heads.out.linear_{alpha}.{name}")


def test_blocks_woven_and_stacked():
    blocks = [block_of(f"{side}_default") for side in "ab"]
    given = [V[f"block.in.{side}"] for side in "ab"]
    masks = [torch.ones(x.shape[:2], dtype=torch.bool) for x in given]
    present = torch.ones(len(given[0]), 2, dtype=torch.bool)
    latent = woven(blocks, given, masks, present, V["fuse.in.latent"], depth=2)
    close(latent, "fuse.out.weave_latent")
    weights = merged_heads([block.head for block in blocks], "published", 0.5)
    close(functional_call(blocks[0].head, weights, latent), "fuse.out.weave_logits")
    close(stacked(blocks, given, masks, present), "fuse.out.stack_latent")
