"""fusemix-diffusers: the plain networks give what diffusers' own give, and are light to import."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from fusemix_diffusers.files import read_folder
from fusemix_diffusers.kandinsky import KandinskyGenerator
from fusemix_diffusers.light.ddim import Ddim
from fusemix_diffusers.light.supported import movq_fault, scheduler_fault, unet_fault
from fusemix_diffusers.resolving import resolve
from fusemix_diffusers.tiny import KANDINSKY, save_kandinsky

from fusemix_core.errors import ArtefactError

CPU = torch.device("cpu")


def load(folder) -> KandinskyGenerator:
    return KandinskyGenerator.load(resolve("mine", None, folder), CPU, torch.float32)


def own_images(pipeline, rows, away, seeds, **options):
    found = pipeline(
        image_embeds=rows,
        negative_image_embeds=away,
        height=16,
        width=16,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        **options,
    )
    return np.stack([np.asarray(image) for image in found.images])


OTHERWISE = {
    "unet": {
        "resnet_time_scale_shift": "default",
        "layers_per_block": 2,
        "norm_eps": 1e-6,
        "time_embedding_dim": 48,
        "norm_num_groups": 16,
    },
    "movq": {"norm_type": "group", "mid_block_add_attention": False},
    "scheduler": {
        "prediction_type": "epsilon",
        "beta_schedule": "squaredcos_cap_v2",
        "timestep_spacing": "trailing",
        "rescale_betas_zero_snr": True,
        "clip_sample": True,
    },
}


@pytest.mark.parametrize("changes", [{}, OTHERWISE], ids=["kandinsky", "otherwise"])
def test_the_plain_networks_draw_what_diffusers_pipeline_draws(tmp_path, changes):
    pipeline = save_kandinsky(tmp_path, **changes)
    (tmp_path / "generator.json").write_text('{"space": "minilm"}')
    generator = load(tmp_path)
    assert generator.light is not None
    rows, away, seeds = torch.randn(3, 16), torch.randn(3, 16), [5, 6, 7]
    for scale, negative in ((4.0, None), (4.0, away), (1.0, None)):
        zeros = torch.zeros(3, 16) if negative is None else negative
        wanted = own_images(
            pipeline, rows, zeros, seeds, num_inference_steps=4, guidance_scale=scale
        )
        got = generator.generate(rows, seeds=seeds, negative=negative, steps=4, guidance=scale)
        assert wanted.std() > 10
        np.testing.assert_array_equal(np.stack([np.asarray(i) for i in got]), wanted)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_the_sampler_steps_as_diffusers_does(prediction, spacing, schedule):
    config = {
        "prediction_type": prediction,
        "timestep_spacing": spacing,
        "beta_schedule": schedule,
        "steps_offset": 1,
        "set_alpha_to_one": False,
    }
    own, ours = DDIMScheduler(**config), Ddim(config)
    own.set_timesteps(7)
    assert ours.times(7) == own.timesteps.tolist()
    x = torch.randn(2, 4, 3, 3)
    for time in own.timesteps:
        output = torch.randn(2, 4, 3, 3)
        wanted = own.step(output, time, x).prev_sample
        torch.testing.assert_close(ours.step(output, int(time), 7, x), wanted, rtol=0, atol=0)
        x = wanted


@pytest.mark.parametrize(
    ("fault", "config", "said"),
    [
        (unet_fault, {**KANDINSKY["unet"], "up_block_types": ["UpBlock2D"]}, "UpBlock2D"),
        (unet_fault, {**KANDINSKY["unet"], "class_embed_type": "timestep"}, "class_embed_type"),
        (unet_fault, {k: v for k, v in KANDINSKY["unet"].items() if k != "mid_block_type"}, "mid"),
        (unet_fault, {**KANDINSKY["unet"], "attention_head_dim": [8, 16]}, "block to block"),
        (movq_fault, {**KANDINSKY["movq"], "lookup_from_codebook": True}, "codebook"),
        (movq_fault, {**KANDINSKY["movq"], "vq_embed_dim": 8}, "vq_embed_dim"),
        (scheduler_fault, {"_class_name": "DDPMScheduler"}, "DDPMScheduler"),
        (scheduler_fault, {**KANDINSKY["scheduler"], "thresholding": True}, "thresholding"),
    ],
)
def test_networks_of_another_form_are_left_to_diffusers(fault, config, said):
    assert said in fault(config)


def test_another_scheduler_is_run_by_diffusers_itself(kandinsky, tmp_path):
    from diffusers import DDPMScheduler

    _, pipeline = kandinsky
    pipeline = type(pipeline)(unet=pipeline.unet, movq=pipeline.movq, scheduler=DDPMScheduler())
    pipeline.save_pretrained(tmp_path)
    (tmp_path / "generator.json").write_text('{"space": "minilm"}')
    generator = load(tmp_path)
    assert generator.light is None
    rows = torch.randn(2, 16)
    got = generator.generate(rows, seeds=[1, 2], steps=2)
    zeros = torch.zeros(2, 16)
    wanted = own_images(pipeline, rows, zeros, [1, 2], num_inference_steps=2, guidance_scale=4.0)
    np.testing.assert_array_equal(np.stack([np.asarray(i) for i in got]), wanted)


def test_half_of_the_file_is_enough_to_decode(kandinsky, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder, _ = kandinsky
    shutil.copytree(folder, tmp_path / "m")
    file = tmp_path / "m/movq/diffusion_pytorch_model.safetensors"
    kept = {k: v for k, v in load_file(file).items() if k.startswith(("decoder", "post_quant"))}
    save_file(kept, file)
    rows = torch.randn(1, 16)
    whole, half = (load(f).generate(rows, seeds=[1]) for f in (folder, tmp_path / "m"))
    assert whole[0].tobytes() == half[0].tobytes()


@pytest.mark.parametrize("what", ["lacks", "shape", "damaged", "gone"])
def test_weights_that_do_not_fit_are_refused(kandinsky, tmp_path, what):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(kandinsky[0], tmp_path / "m")
    file = tmp_path / "m/unet/diffusion_pytorch_model.safetensors"
    if what == "damaged":
        file.write_bytes(b"no weights")
    elif what == "gone":
        file.unlink()
    else:
        tensors = load_file(file)
        tensors.pop("conv_in.bias") if what == "lacks" else tensors.update(
            {"conv_in.bias": torch.zeros(3)}
        )
        save_file(tensors, file)
    with pytest.raises(ArtefactError, match=r"conv_in\.bias|can't be read"):
        load(tmp_path / "m")


def test_half_precision_files_draw_nearly_the_same(kandinsky, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder, _ = kandinsky
    shutil.copytree(folder, tmp_path / "m")
    for file in (tmp_path / "m").rglob("*.safetensors"):
        save_file({k: v.half() for k, v in load_file(file).items()}, file)
    rows = torch.randn(2, 16)
    images = [load(f).generate(rows, seeds=[1, 2]) for f in (folder, tmp_path / "m")]
    one, two = (np.stack([np.asarray(i, dtype=int) for i in part]) for part in images)
    assert 0 < np.abs(one - two).mean() < 4


@pytest.mark.slow
def test_drawing_imports_no_diffusers(kandinsky):
    folder, _ = kandinsky
    code = f"""
import sys, torch
from fusemix_diffusers.kandinsky import KandinskyGenerator
from fusemix_diffusers.resolving import resolve
from pathlib import Path
spec = resolve("mine", None, Path({json.dumps(str(folder))}))
generator = KandinskyGenerator.load(spec, torch.device("cpu"), torch.float32)
generator.generate(torch.randn(1, 16), seeds=[1], steps=1)
print(sorted({{"diffusers", "transformers", "accelerate"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_folder_is_read_as_it_is(kandinsky):
    files = read_folder(kandinsky[0], "mine")
    assert files.pipeline == "KandinskyV22Pipeline"
    assert files.components == {
        "unet": "UNet2DConditionModel",
        "scheduler": "DDIMScheduler",
        "movq": "VQModel",
    }
    assert files.generator == {"space": "minilm", "norm": "unit", "steps": 4}
