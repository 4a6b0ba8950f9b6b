"""Measures the finished weights: does a drawing show what its name says, and is it a copy?

    python measure.py --data DIR --seeds 3

A judge that took no part in training (EfficientNet-Lite0, ImageNet) compares each drawing with the
mean of each concept's real pictures. The same judge on real pictures, each left out of its own
concept's mean, is the limit. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from fusemix_starter import LITE0
from fusemix_starter.image import PackagedTimmEncoder
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from fusemix_core import load_generator

SIZE = 32


def judged(images: list[Image.Image]) -> Tensor:
    """The judge's latents of 32-pixel images, `[n, 1280]`."""
    judge = PackagedTimmEncoder.load(LITE0, torch.device("cpu"), torch.float32)
    parts = [images[i : i + 32] for i in range(0, len(images), 32)]
    return torch.cat([judge.encode(judge.collate(part)) for part in parts])


class Real:
    """The real pictures, and each concept's mean latent."""

    def __init__(self, data: Path) -> None:
        manifest = json.loads((data / "manifest.json").read_text())
        self.names = [concept["name"] for concept in manifest["concepts"]]
        number = {name: i for i, name in enumerate(self.names)}
        self.concept = torch.tensor([number[row["concept"]] for row in manifest["pictures"]])
        self.test = torch.tensor([row["split"] == "test" for row in manifest["pictures"]])
        self.pictures = load_file(data / "pictures.safetensors")["pictures"]
        path = data / "judged.safetensors"
        if not path.exists():
            images = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in self.pictures]
            save_file({"rows": judged(images)}, path)
        self.rows = load_file(path)["rows"]
        self.middle = self.rows.mean(0)
        self.rows = F.normalize(self.rows - self.middle, dim=-1)
        self.sums = torch.zeros(len(self.names), self.rows.shape[1])
        self.sums.index_add_(0, self.concept, self.rows)

    def rank(self, rows: Tensor, concept: Tensor) -> Tensor:
        """How many concepts' means are nearer to each row than that of its own, `[n]`."""
        near = F.normalize(rows - self.middle, dim=-1) @ F.normalize(self.sums, dim=-1).T
        return (near > near.gather(1, concept[:, None])).sum(1)

    def own_rank(self) -> Tensor:
        """The same of the real pictures, each left out of the mean of its concept."""
        others = F.normalize(self.sums[self.concept] - self.rows, dim=-1)
        near = self.rows @ F.normalize(self.sums, dim=-1).T
        own = (self.rows * others).sum(1, keepdim=True)
        near.scatter_(1, self.concept[:, None], -2.0)
        return (near > own).sum(1)

    def distance(self, pictures: Tensor) -> Tensor:
        """The root mean square distance to the nearest training picture; values from 0 to 1."""
        train = self.pictures[~self.test].flatten(1).float() / 255
        found = torch.cdist(pictures.flatten(1).float() / 255, train).min(1).values
        return found / train.shape[1] ** 0.5


def recall(rank: Tensor) -> dict[str, float]:
    return {f"R@{k}": round(100 * (rank < k).float().mean().item(), 1) for k in (1, 5, 10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--generator", default="emoji")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sheet", type=Path, help="a PNG of the first seed's drawings")
    args = parser.parse_args()
    torch.set_num_threads(1)
    real, draw = Real(args.data), load_generator(args.generator)
    wanted = {"guidance": args.guidance, "steps": args.steps}
    options = {"size": SIZE, **{k: v for k, v in wanted.items() if v is not None}}
    own = torch.arange(len(real.names))
    rows = draw.conditions(None).of_items("text", real.names, own.tolist())
    found = {"real pictures": recall(real.own_rank())}
    copies = [real.distance(real.pictures[real.test])]
    for seed in range(args.seeds):
        seeds = [1000 * seed + i for i in range(len(rows))]
        images = draw.draw(rows, seeds, **options)
        if args.sheet and seed == 0:
            sheet(images, args.sheet)
        found[f"names, seed {seed}"] = recall(real.rank(judged(images), own))
        copies.append(real.distance(torch.stack([pil_to_tensor(image) for image in images])))
    held_out, drawn = copies[0], torch.cat(copies[1:])
    found["distance to the nearest training picture"] = {
        "held-out pictures, median": round(held_out.median().item(), 3),
        "drawings, median": round(drawn.median().item(), 3),
        "drawings nearer than 0.05, %": round(100 * (drawn < 0.05).float().mean().item(), 1),
    }
    print(json.dumps(found, indent=1))


def sheet(images: list[Image.Image], path: Path, columns: int = 32) -> None:
    """All images in one, in rows."""
    lines = -(-len(images) // columns)
    whole = Image.new("RGB", (columns * SIZE, lines * SIZE), "white")
    for i, image in enumerate(images):
        whole.paste(image, (i % columns * SIZE, i // columns * SIZE))
    whole.resize((2 * whole.width, 2 * whole.height), Image.Resampling.BICUBIC).save(path)


if __name__ == "__main__":
    main()
