"""fusemix-diffusers: what each bridge hands to its pipeline, and that row i depends on row i."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fusemix_diffusers import conditions
from fusemix_diffusers.guidance import steer
from fusemix_diffusers.resolving import resolve
from fusemix_diffusers.tiny import save_kandinsky

from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Padded
from fusemix_core.registry import registry
from fusemix_core.specs import GeneratorSpec, load_target
from fusemix_core.testing.generators import check_generator

CPU = torch.device("cpu")
TEXTS = ["a dog", "two cats on a sofa"]
WIDTH = 24
FAST = {"steps": 2}


def load(folder, name="mine"):
    spec = resolve(name, None, folder)
    return load_target(spec.target).load(spec, CPU, torch.float32)


def encoder(folder, name):
    spec = conditions.resolve(name, None, folder)
    return load_target(spec.target).load(spec, CPU, torch.float32)


def arrays(images):
    return np.stack([np.asarray(image).astype(int) for image in images])


def own(pipeline, seeds, **inputs):
    found = pipeline(
        height=16,
        width=16,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        **inputs,
    )
    return arrays(found.images)


@pytest.fixture
def generator(stable, kandinsky):
    """The generator of a name such as `sd#ip`, and conditions of two rows that it takes."""

    def find(name):
        kind, _, bridge = name.partition("#")
        folder = kandinsky[0] if kind == "kandinsky" else stable[kind][0]
        found = load(folder, f"mine#{bridge}" if bridge else "mine")
        if found.spec.condition == "tokens":
            reads = encoder(folder, "mine#prompt" if kind == "xl" else "mine#text")
            return found, reads.encode(reads.collate(TEXTS), "tokens")
        width = found.spec.dim or 6
        return found, torch.randn(2, width, generator=torch.Generator().manual_seed(3))

    return find


CHECKED = ["unclip", "sd#ip", "xl#ip", "sd", "xl", "sd#guidance"]
EMBEDDED = ["kandinsky", "unclip", "sd#ip", "xl#ip", "sd", "xl"]


@pytest.mark.parametrize("name", [*EMBEDDED[:-1], pytest.param("xl", marks=pytest.mark.long)])
def test_an_image_depends_on_its_own_row_seed_and_options_only(generator, name):
    made, rows = generator(name)
    both = arrays(made.generate(rows, seeds=[4, 5], **FAST))
    assert both.shape == (2, 16, 16, 3) and both.std() > 5
    for i in range(2):
        one = arrays(made.generate(rows[i : i + 1], seeds=[4 + i], **FAST))
        assert np.abs(one[0] - both[i]).max() <= 1
    assert (arrays(made.generate(rows, seeds=[4, 5], **FAST)) == both).all()
    other = made.generate(rows[torch.tensor([1, 0])], seeds=[4, 5], **FAST)
    assert np.abs(arrays(other) - both).max() > 3
    assert np.abs(arrays(made.generate(rows, seeds=[6, 7], **FAST)) - both).max() > 20


@pytest.mark.parametrize("name", ["sd", "xl"])
def test_tokens_draw_what_the_prompt_draws_bit_for_bit(stable, generator, name):
    made, rows = generator(name)
    pipeline = stable[name][1]
    wanted = own(pipeline, [1, 2], prompt=TEXTS, guidance_scale=7.5)
    assert (arrays(made.generate(rows, seeds=[1, 2], **FAST)) == wanted).all()
    wanted = own(pipeline, [1, 2], prompt=TEXTS, negative_prompt=TEXTS[::-1], guidance_scale=7.5)
    away = rows[torch.tensor([1, 0])]
    assert (arrays(made.generate(rows, seeds=[1, 2], negative=away, **FAST)) == wanted).all()


def test_the_null_condition_of_unclip_is_the_pipelines_own(stable, generator):
    made, rows = generator("unclip")
    wanted = own(
        stable["unclip"][1], [1, 2], image_embeds=rows, prompt=["", ""], guidance_scale=7.5
    )
    assert (arrays(made.generate(rows, seeds=[1, 2], **FAST)) == wanted).all()
    noisier = made.generate(rows, seeds=[1, 2], noise_level=900, **FAST)
    assert np.abs(arrays(noisier) - wanted).max() > 3


@pytest.mark.parametrize("name", ["sd#ip", "xl#ip"])
def test_an_ip_adapter_draws_what_diffusers_draws_of_one_embedding(generator, name):
    made, rows = generator(name)
    zeros = torch.zeros(1, 1, WIDTH)
    for i in range(2):
        embeddings = torch.cat([zeros, rows[i : i + 1, None]])  # what to keep away from is first
        wanted = own(
            made.pipeline,
            [i],
            prompt=["a drawing"],
            ip_adapter_image_embeds=[embeddings],
            guidance_scale=7.5,
        )
        got = made.generate(rows[i : i + 1], seeds=[i], prompt="a drawing", **FAST)
        assert (arrays(got) == wanted).all()
    plain = arrays(made.generate(rows, seeds=[0, 0], scale=0.0, **FAST))
    assert (plain[0] == plain[1]).all()


@pytest.mark.parametrize("name", ["kandinsky", "sd#ip", "unclip"])
def test_the_condition_nothing_is_zeros_and_a_negative_takes_its_place(generator, name):
    made, rows = generator(name)
    zeros = torch.zeros_like(rows)
    plain = arrays(made.generate(rows, seeds=[1, 2], **FAST))
    assert (arrays(made.generate(rows, seeds=[1, 2], negative=zeros, **FAST)) == plain).all()
    away = arrays(made.generate(rows, seeds=[1, 2], negative=-rows, **FAST))
    assert np.abs(away - plain).max() > 3
    assert made.null(2).shape == rows.shape and not made.null(2).any()


@pytest.mark.parametrize("name", ["sd", "xl"])
def test_the_condition_nothing_is_the_pipelines_own_empty_prompt(generator, name):
    made, rows = generator(name)
    null = made.null(2)
    assert null.shape == rows.values.shape
    plain = arrays(made.generate(rows, seeds=[1, 2], **FAST))
    assert (arrays(made.generate(rows, seeds=[1, 2], negative=null, **FAST)) == plain).all()


@pytest.mark.slow
def test_a_small_model_in_kandinskys_format_keeps_the_generator_contract(tmp_path):
    save_kandinsky(tmp_path, unet={"encoder_hid_dim": 384})
    (tmp_path / "generator.json").write_text('{"space": "minilm", "norm": "unit"}')
    report = check_generator(f"diffusers:mine@{tmp_path}")
    assert not [result for result in report if not result.passed]


@pytest.mark.long
@pytest.mark.parametrize("name", CHECKED)
def test_the_bridges_keep_the_generator_contract(stable, name):
    kind, _, part = name.partition("#")
    folder = stable[kind][0]
    report = check_generator(f"diffusers:mine{f'#{part}' if part else ''}@{folder}")
    assert not [result for result in report if not result.passed]


def redness(images):
    return images[:, 0].mean(dim=(1, 2)) - images[:, 1:].mean(dim=(1, 2, 3))


@pytest.mark.parametrize(
    "name", ["sd#guidance", pytest.param("xl#guidance", marks=pytest.mark.long)]
)
def test_guidance_moves_images_up_the_score(generator, name):
    made, rows = generator(name)
    scores = []
    for strength in (0.0, 500.0, 2000.0):
        drawn = made.generate(
            rows, seeds=[1, 2], score=redness, strength=strength, steps=6, guidance=1.0
        )
        scores.append(redness(torch.tensor(arrays(drawn) / 255.0).permute(0, 3, 1, 2)))
    assert (scores[0] < scores[1]).all() and (scores[1] < scores[2]).all()
    assert "step" not in vars(made.pipeline.scheduler)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_steering_follows_dhariwal_and_nichol(kind):
    """The noise moves by −strength · √(1 − ᾱ) · ∇ₓ score, whatever the network predicts."""
    from types import SimpleNamespace

    mix = torch.randn(4, 3)
    vae = SimpleNamespace(
        config=SimpleNamespace(scaling_factor=0.5),
        decode=lambda z, return_dict: (torch.einsum("nchw,cd->ndhw", z, mix),),
    )
    alpha = torch.tensor(0.3)
    scheduler = SimpleNamespace(
        alphas_cumprod=alpha[None], config=SimpleNamespace(prediction_type=kind)
    )
    x, noise = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    signal, noisy = alpha**0.5, (1 - alpha) ** 0.5

    def score(images):
        return images.square().mean(dim=(1, 2, 3))

    inputs = x.clone().requires_grad_()
    image = torch.einsum("nchw,cd->ndhw", (inputs - noisy * noise) / signal / 0.5, mix)
    score((image * 0.5 + 0.5).clamp(0, 1)).sum().backward()
    wanted = noise - 7 * noisy * inputs.grad

    def output_of(noise):
        clean = (x - noisy * noise) / signal
        forms = {"epsilon": noise, "sample": clean}
        return forms.get(kind, signal * noise - noisy * clean)

    got = steer(output_of(noise), 0, x, scheduler, vae, score, 7.0)
    torch.testing.assert_close(got, output_of(wanted))


@pytest.mark.parametrize(
    ("name", "rows", "options", "said"),
    [
        ("kandinsky", torch.zeros(2, 17), {}, "width 16"),
        ("kandinsky", torch.zeros(2, 3, 16), {}, "one vector per image"),
        ("kandinsky", torch.full((2, 16), torch.nan), {}, "not finite"),
        ("kandinsky", torch.zeros(2, 16), {"size": 18}, "multiples of 4 pixels"),
        ("kandinsky", torch.zeros(2, 16), {"steps": 0}, "0 steps"),
        ("kandinsky", torch.zeros(2, 16), {"step": 3}, "no option of"),
        ("unclip", torch.zeros(2, WIDTH), {"noise_level": 1000}, "noise level"),
        ("sd#guidance", torch.zeros(2, 6), {"score": len, "negative": torch.zeros(2, 6)}, "no neg"),
        ("sd#ip", torch.zeros(2, WIDTH), {"scale": -1}, "scale of the adapter"),
        ("sd#ip", torch.zeros(2, WIDTH), {"prompt": 3}, "not a text"),
        ("sd", torch.zeros(2, 1, 32), {}, "48 tokens per image"),
        ("xl", torch.zeros(2, 48, 64), {}, "49 tokens per image"),
        ("sd", torch.zeros(2, 48, 31), {}, "width 32"),
        ("sd", Padded(torch.zeros(2, 48, 32), torch.arange(48).lt(9).repeat(2, 1)), {}, "48 tok"),
        ("sd#guidance", torch.zeros(2, 6), {}, "got none"),
    ],
)
def test_what_a_pipeline_can_not_take_is_refused(generator, name, rows, options, said):
    made, _ = generator(name)
    with pytest.raises(ConfigError, match=said) as error:
        made.generate(rows, seeds=[1, 2], **options)
    assert error.value.hint or said == "not finite"


def test_one_seed_per_row_is_wanted(generator):
    made, rows = generator("kandinsky")
    with pytest.raises(ConfigError, match="2 conditions, 3 seeds"):
        made.generate(rows, seeds=[1, 2, 3])


def test_the_miniature_is_one_of_the_specs_width():
    spec = GeneratorSpec(name="g", target="a:B", space="minilm", dim=384)
    made = load_target("fusemix_diffusers.kandinsky:KandinskyGenerator").tiny(spec)
    images = made.generate(torch.randn(2, 384), seeds=[1, 2])
    assert [image.size for image in images] == [(16, 16)] * 2


def test_the_family_is_found_by_its_name(stable):
    folder = stable["sd"][0]
    spec = registry.generator(f"diffusers:mine#ip@{folder}")
    assert spec.local and spec.dim == WIDTH and spec.condition == "pooled"
    assert registry.encoder(spec.space).dim == WIDTH
