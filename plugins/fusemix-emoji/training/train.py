"""Trains the emoji model: an autoencoder, then a diffusion model of its latents.

    python train.py --data DIR --run DIR autoencoder --minutes 18
    python train.py --data DIR --run DIR unet --minutes 80
    python train.py --data DIR --run DIR export --out ../src/fusemix_emoji/weights

`--data` is the folder of build.py. The condition is MiniLM's vector of a caption. Each phase saves
a checkpoint every few minutes in `--run` and goes on from there when it is started again. The
learning rate falls with the time used, so a slower machine trains less but finishes. Runs on a GPU
if there is one, else on a CPU in bfloat16.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import colours
import torch
import torch.nn.functional as F
from concepts import SYNONYMS
from diffusers import DDIMScheduler, KandinskyV22Pipeline, UNet2DConditionModel, VQModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from trainer import DEVICE, Trainer

DIM = 384  # of MiniLM
CHANNELS = 8  # of the latents, 8 x 8 each
NOISE_ON_LATENTS = 0.1  # the decoder has to bear what the diffusion model gets slightly wrong
MAX_NOISE = 0.025  # a dimension, on the condition
DROPPED = 0.1  # conditions replaced by zeros, for guidance
PAINTED = 0.3  # of the images, in a colour that they do not have
COLOUR_SAID = 0.15  # of the others that have a main colour, with its name in the caption
# What the diffusion model draws. The two other sets only train the autoencoder: in the time that a
# CPU has, four styles come out crisper than six.
STYLES = ("noto", "fluent-emoji-flat", "twemoji", "emojione")


def autoencoder() -> VQModel:
    """32 x 32 x 3 to 8 x 8 x 8. Kandinsky's pipeline never uses the codebook."""
    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        latent_channels=CHANNELS,
        vq_embed_dim=CHANNELS,
        num_vq_embeddings=16,
        norm_num_groups=16,
    )


def unet() -> UNet2DConditionModel:
    """A small U-Net of Kandinsky 2.2's kind; the second half of its output is not used."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        block_out_channels=(64, 128),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=64,
        norm_num_groups=16,
        encoder_hid_dim=DIM,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=512,
    )


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )


def averaged(model: nn.Module, path: Path) -> nn.Module:
    """The model with the averaged weights of a checkpoint."""
    tensors = load_file(path)
    state = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
    model.load_state_dict(state, strict=False)
    return model.to(DEVICE).eval().requires_grad_(False)


def pictures(data: Path, split: str, sets: tuple[str, ...] = ()) -> tuple[Tensor, Tensor]:
    """The pictures of a split in -1 .. 1, of some sets or all, and each one's concept's index."""
    manifest = json.loads((data / "manifest.json").read_text())
    number = {concept["name"]: i for i, concept in enumerate(manifest["concepts"])}
    rows = [
        i
        for i, row in enumerate(manifest["pictures"])
        if row["split"] == split and (not sets or row["set"] in sets)
    ]
    concept = torch.tensor([number[manifest["pictures"][i]["concept"]] for i in rows])
    drawn = load_file(data / "pictures.safetensors")["pictures"][rows]
    return (drawn.float() / 127.5 - 1).to(DEVICE), concept.to(DEVICE)


def embedded_captions(data: Path, run: Path) -> tuple[Tensor, Tensor]:
    """MiniLM's vectors [concepts, most captions, 384], and how many captions each concept has."""
    path = run / "captions.safetensors"
    concepts = json.loads((data / "manifest.json").read_text())["concepts"]
    if not path.exists():
        texts = [text for concept in concepts for text in concept["captions"]]
        save_file({"rows": embedded(texts)}, path)
    rows = F.normalize(load_file(path)["rows"].float(), dim=-1).split(
        [len(concept["captions"]) for concept in concepts]
    )
    counts = torch.tensor([len(r) for r in rows])
    return nn.utils.rnn.pad_sequence(rows, batch_first=True).to(DEVICE), counts.to(DEVICE)


class Painted(NamedTuple):
    """What the U-Net learns: images as they are, and the same in other colours.

    Attributes:
        latents: Of the images, `[n, 8, 8, 8]`; those as they are come first.
        concept: Of each image, an index.
        colour: Of each image, an index; -1 if it has no main colour.
        captions: Of a concept in a colour, `[concepts, colours, 2, 384]`; zeros if no image is so.
        plain: How many images are as they are.
    """

    latents: Tensor
    concept: Tensor
    colour: Tensor
    captions: Tensor
    plain: int


def painted(data: Path, run: Path) -> Painted:
    """The training images and their latents, computed once."""
    path = run / "painted.safetensors"
    if not path.exists():
        drawn, concept = (part.cpu() for part in pictures(data, "train", STYLES))
        found = colours.Coloured(drawn / 2 + 0.5)
        images, owners, paints = [drawn], [torch.arange(len(drawn))], [found.name]
        for colour in colours.MADE:
            turned, index = found.turned(colour)
            images.append(turned * 2 - 1)
            owners.append(index)
            paints.append(torch.full((len(index),), colours.NAMES.index(colour)))
        owner, colour = torch.cat(owners), torch.cat(paints)
        model = standardised_autoencoder(data, run)
        tensors = {
            "latents": encoded(model, torch.cat(images).to(DEVICE)).cpu(),
            "concept": concept[owner],
            "colour": colour,
            "captions": colour_captions(data, concept[owner], colour),
            "plain": torch.tensor(len(drawn)),
        }
        save_file({k: v.contiguous() for k, v in tensors.items()}, path)
    tensors = load_file(path, device=str(DEVICE))
    plain = int(tensors.pop("plain"))
    return Painted(**tensors, plain=plain)


def colour_captions(data: Path, concept: Tensor, colour: Tensor) -> Tensor:
    """`Painted.captions`, of the pairs that there are."""
    names = [c["name"] for c in json.loads((data / "manifest.json").read_text())["concepts"]]
    pairs = sorted(
        {(c, p) for c, p in zip(concept.tolist(), colour.tolist(), strict=True) if p >= 0}
    )
    texts = [t for c, p in pairs for t in colours.captions(names[c], colours.NAMES[p])]
    found = torch.zeros(len(names), len(colours.NAMES), 2, DIM)
    first, second = torch.tensor(pairs).T
    found[first, second] = F.normalize(embedded(texts).float(), dim=-1).unflatten(0, (-1, 2))
    return found


def embedded(texts: list[str]) -> Tensor:
    """MiniLM's vectors as the encoder `minilm` gives them, `[n, 384]`."""
    from fusemix_starter import MINILM
    from fusemix_starter.text import PackagedSentenceTransformerEncoder

    encoder = PackagedSentenceTransformerEncoder.load(MINILM, torch.device("cpu"), torch.float32)
    chunks = [texts[i : i + 64] for i in range(0, len(texts), 64)]
    return torch.cat([encoder.encode(encoder.collate(chunk)) for chunk in chunks])


def train_autoencoder(data: Path, run: Path, seconds: float, batch: int = 32) -> None:
    drawn, _ = pictures(data, "train")
    model = autoencoder().to(DEVICE)
    model.quantize.requires_grad_(False)
    trainer = Trainer(
        model, run / "autoencoder.safetensors", seconds=seconds, rate=1e-3, decay=0.998
    )

    def loss_of_batch() -> tuple[Tensor, int]:
        x = drawn[torch.randint(len(drawn), (batch,), device=DEVICE)]
        x = torch.where(torch.rand(batch, 1, 1, 1, device=DEVICE) < 0.5, x, x.flip(-1))
        z = model.encode(x).latents
        noisy = z + NOISE_ON_LATENTS * torch.randn_like(z)
        y = model.decode(noisy, force_not_quantize=True).sample.float()
        error = y - x
        edges = sum(error.diff(dim=d).abs().mean() for d in (-1, -2))  # blur costs twice
        loss = error.abs().mean() + 0.5 * edges + 2 * error.square().mean()
        return loss + 1e-3 * z.float().square().mean(), batch

    trainer.run(loss_of_batch)


@torch.no_grad()
def standardised_autoencoder(data: Path, run: Path) -> VQModel:
    """The trained autoencoder, its 1 x 1 convolutions scaled to latents of unit variance."""
    model = averaged(autoencoder(), run / "autoencoder.safetensors")
    z = encoded(model, pictures(data, "train")[0])
    mean, deviation = z.mean((0, 2, 3)), z.std((0, 2, 3))
    before, after = model.quant_conv, model.post_quant_conv
    before.weight.div_(deviation[:, None, None, None])
    before.bias.sub_(mean).div_(deviation)
    after.bias.add_(after.weight[:, :, 0, 0] @ mean)
    after.weight.mul_(deviation[None, :, None, None])
    return model


@torch.no_grad()
def encoded(model: VQModel, drawn: Tensor) -> Tensor:
    return torch.cat([model.encode(part).latents for part in drawn.split(256)])


def condition(captions: Tensor) -> Tensor:
    """A condition per pair of captions [b, 2, 384]: the two mixed or the first, noisy, or zeros."""
    b, device = len(captions), captions.device
    share = torch.rand(b, 1, device=device) * (torch.rand(b, 1, device=device) < 0.5)
    sigma = MAX_NOISE * torch.rand(b, 1, device=device)
    mixed = F.normalize(torch.lerp(captions[:, 0], captions[:, 1], share), dim=-1)
    noisy = F.normalize(mixed + sigma * torch.randn_like(mixed), dim=-1)
    return noisy * (torch.rand(b, 1, device=device) >= DROPPED)


def train_unet(data: Path, run: Path, seconds: float, batch: int = 128) -> None:
    known, (captions, counts) = painted(data, run), embedded_captions(data, run)
    model = unet().to(DEVICE)
    with torch.no_grad():  # unit vectors are short: let the condition outweigh the biases
        model.add_embedding.image_proj.weight.mul_(8)
        model.encoder_hid_proj.image_embeds.weight.mul_(8)
    trainer = Trainer(model, run / "unet.safetensors", seconds=seconds, rate=1e-3, decay=0.999)
    noise = scheduler()
    steps = noise.config["num_train_timesteps"]

    def loss_of_batch() -> tuple[Tensor, int]:
        plain = torch.rand(batch, device=DEVICE) >= PAINTED
        last = torch.where(plain, known.plain, len(known.latents) - known.plain)
        chosen = (torch.rand(batch, device=DEVICE) * last).long() + known.plain * ~plain
        concept, colour = known.concept[chosen], known.colour[chosen]
        two = torch.rand(batch, 2, device=DEVICE) * counts[concept, None]
        texts = captions[concept[:, None], two.long()]
        say = ~plain | ((colour >= 0) & (torch.rand(batch, device=DEVICE) < COLOUR_SAID))
        texts = torch.where(say[:, None, None], known.captions[concept, colour], texts)
        x = known.latents[chosen]
        e = torch.randn_like(x)
        places = torch.arange(batch, device=DEVICE) + torch.rand(1, device=DEVICE)
        t = (places / batch * steps).long()
        out = model(
            noise.add_noise(x, e, t),
            t,
            encoder_hidden_states=None,
            added_cond_kwargs={"image_embeds": condition(texts)},
            return_dict=False,
        )[0][:, :CHANNELS]
        return F.mse_loss(out.float(), noise.get_velocity(x, e, t)), batch

    trainer.run(loss_of_batch)


def export(data: Path, run: Path, out: Path) -> None:
    """Write the averaged weights as a diffusers folder in half precision, and the vectors of all
    names and synonyms, on which a fused model's embeddings may be projected."""
    model = averaged(unet(), run / "unet.safetensors")
    pipeline = KandinskyV22Pipeline(
        unet=model, scheduler=scheduler(), movq=standardised_autoencoder(data, run)
    )
    pipeline.to("cpu", torch.float16).save_pretrained(out, safe_serialization=True)
    concepts = json.loads((data / "manifest.json").read_text())["concepts"]
    rows, _ = embedded_captions(data, run)
    bank = [
        row
        for concept, captions in zip(concepts, rows, strict=True)
        for text, row in zip(concept["captions"], captions, strict=False)
        if text in (concept["name"], *SYNONYMS.get(concept["name"], ()))
    ]
    save_file({"rows": torch.stack(bank).half().cpu()}, out / "conditions.safetensors")
    about = {"space": "minilm", "norm": "unit", "size": 32, "steps": 25, "guidance": 3.0}
    (out / "generator.json").write_text(json.dumps(about) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=("autoencoder", "unet", "export"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    if args.phase == "autoencoder":
        train_autoencoder(args.data, args.run, 60 * args.minutes)
    elif args.phase == "unet":
        train_unet(args.data, args.run, 60 * args.minutes)
    else:
        export(args.data, args.run, args.out)


if __name__ == "__main__":
    main()
