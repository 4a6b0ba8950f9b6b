"""A fit that is not alignment: a linear classifier of a fact, from one modality's latents."""

import os
import signal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy

from fusemix_core.config import Training
from fusemix_core.data.facts import Fact
from fusemix_core.engine.checkpoint import run_digest
from fusemix_core.engine.fit import Fit
from fusemix_core.engine.loop import Trainer
from fusemix_core.engine.plan import plan_steps
from fusemix_core.engine.randomness import seeded
from fusemix_core.gathering import rank, total
from fusemix_core.interfaces import Callback, FitContext, PairedLatents, ResidentLatents
from fusemix_core.mixups.fusemix import FuseMixMixup

CPU = torch.device("cpu")
NAMES = ("cat", "dog", "owl")
TRAINING = Training(epochs=12, batch_size=15, lr=0.1, warmup_steps=2, clip_norm=1.0, ema=0.9)


class Classifier(Fit):
    """Rows of several sources have the mean of their losses; rows without a label have none."""

    uses = ("latents", "facts")

    def __init__(self, train, validation, dropout=0.0):
        self.validation = validation
        width = train.dims["image"]
        head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, len(NAMES))).double()
        super().__init__({"head": head})

    def loss(self, step):
        rows, labels = step.own.latents["image"], step.own.facts["label"]
        logits = self.modules["head"](rows)
        known = labels >= 0
        losses = [
            cross_entropy(logits, labels[:, s], ignore_index=-1, reduction="sum")
            for s in range(labels.shape[1])
        ]
        return total(sum(losses)) / total(known.sum()).clamp(min=1)

    def validate(self, modules):
        batch = self.validation.batch(torch.arange(len(self.validation)))
        found = modules["head"](batch.latents["image"]).argmax(dim=1)
        right = (found == batch.facts["label"][:, 0]).double().mean().item()
        return {"accuracy": right, "score": right}


def latents():
    """Both splits of rows whose label follows from the image; a few labels are missing."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(120, 9, generator=draw, dtype=torch.float64)
    labels = (images @ torch.randn(9, 3, generator=draw, dtype=torch.float64)).argmax(dim=1)
    labels[:90:13] = -1
    tables = {"image": ResidentLatents(images), "text": ResidentLatents(images[:, :2])}
    facts = {"label": Fact("class", labels.numpy().astype(np.int64), NAMES)}
    pairs = PairedLatents(tables, torch.arange(120)[:, None].repeat(1, 2), facts)
    return pairs.select(torch.arange(90)), pairs.select(torch.arange(90, 120))


def fitted(dropout=0.0, **context):
    """The weights that are kept, and the accuracy of each evaluation."""
    train, validation = latents()
    context = FitContext(seed=2, **context)
    with seeded(context.seed, CPU):
        fit = Classifier(train, validation, dropout)
        mixup = FuseMixMixup()
        plan = plan_steps(len(train), mixup.rows_per_pair, TRAINING)
        digest = run_digest({"dropout": dropout}, train, validation, context)
        trainer = Trainer(fit, train, mixup, plan, context, digest)
        kept = trainer.run()
    return kept["head"].state_dict(), trainer.state.history


class StopAt(Callback):
    def __init__(self, step, how):
        self.step, self.how = step, how

    def on_step(self, step, metrics):
        if step == self.step:
            self.how()


def interrupt():
    raise KeyboardInterrupt


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def killed(folder, step):
    """Run in a process of its own."""
    torch.set_num_threads(1)
    fitted(0.3, checkpoints=folder, callbacks=[StopAt(step, die)])


def share_classifier(folder):
    save_file(fitted()[0], folder / f"{rank()}.safetensors")


def stopped_classifier(folder):
    """A fit with dropout to its end, and the same one stopped in its eighth step."""
    save_file(fitted(0.3)[0], folder / f"whole-{rank()}.safetensors")
    try:
        fitted(0.3, checkpoints=folder / "checkpoints", callbacks=[StopAt(8, interrupt)])
    except KeyboardInterrupt:
        assert rank() == 0
    except RuntimeError:  # the first process has left
        assert rank() > 0


def resumed_classifier(folder):
    found, _ = fitted(0.3, checkpoints=folder / "checkpoints", resume=True)
    save_file(found, folder / f"resumed-{rank()}.safetensors")
