"""Steps against the clock, with checkpoints, for both phases of train.py."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

SAVE_EVERY = 180.0  # seconds
ATTENTION = [SDPBackend.MATH]  # 16 positions: faster than flash attention on a CPU
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Trainer:
    """Steps against the clock, with a moving average of the weights and checkpoints.

    Args:
        path: The checkpoint, which is read if it exists.
        seconds: When training ends; the learning rate is a cosine over them.
    """

    def __init__(self, model: nn.Module, path: Path, *, seconds: float, rate: float, decay: float):
        self.model, self.path, self.seconds, self.rate, self.decay = (
            model,
            path,
            seconds,
            rate,
            decay,
        )
        self.parameters = dict(model.named_parameters())
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.step, self.used, self.samples = 0, 0.0, 0
        if path.exists():
            self._restore()

    def run(self, loss_of_batch: Callable[[], tuple[Tensor, int]]) -> None:
        """Train until the time is used; `loss_of_batch` returns a loss and a count of pictures."""
        began, saved, told = time.monotonic() - self.used, time.monotonic(), time.monotonic()
        losses, seen = [], 0
        while self.used < self.seconds:
            rate = self._rate()
            with torch.autocast(DEVICE.type, torch.bfloat16), sdpa_kernel(ATTENTION):
                loss, count = loss_of_batch()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
            self._average()
            self.step, seen, self.samples = self.step + 1, seen + count, self.samples + count
            losses.append(loss.detach())
            now = time.monotonic()
            self.used = now - began
            if now - told > 30 or self.used >= self.seconds:
                mean, left = torch.stack(losses).mean(), max(self.seconds - self.used, 0) / 60
                print(
                    f"step {self.step} loss {mean:.4f} rate {rate:.2e} pictures {self.samples:,} "
                    f"({seen / (now - told):.0f}/s) {left:.1f} min left",
                    flush=True,
                )
                losses, seen, told = [], 0, now
            if now - saved > SAVE_EVERY:
                self.save()
                saved = now
        self.save()

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 200)
        cosine = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * self.used / self.seconds)).item())
        rate = self.rate * warm * max(cosine, 0.01)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        return rate

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        new = [p.detach() for p in self.parameters.values()]
        torch._foreach_lerp_(list(self.average.values()), new, 1 - decay)

    def save(self) -> None:
        """Write the checkpoint; an interrupted write leaves the one before."""
        tensors = {f"model.{k}": p.detach() for k, p in self.parameters.items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for name, p in self.parameters.items():
            for key, value in self.optimiser.state[p].items():
                tensors[f"{key}.{name}"] = value
        facts = {"step": self.step, "used": self.used, "samples": self.samples}
        part = self.path.with_suffix(".part")
        save_file(
            {k: v.contiguous().clone() for k, v in tensors.items()},
            part,
            metadata={"facts": json.dumps(facts)},
        )
        part.replace(self.path)
        self.path.with_suffix(".json").write_text(json.dumps(facts))

    def _restore(self) -> None:
        tensors = load_file(self.path, device=str(DEVICE))
        facts = json.loads(self.path.with_suffix(".json").read_text())
        self.step, self.used, self.samples = facts["step"], facts["used"], facts["samples"]
        torch.manual_seed(self.step)  # other batches than those of the first start
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(tensors[f"model.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
                keys = ("step", "exp_avg", "exp_avg_sq")
                self.optimiser.state[p] = {key: tensors[f"{key}.{name}"] for key in keys}
        print(f"goes on from step {self.step}, {self.used / 60:.1f} min", flush=True)
