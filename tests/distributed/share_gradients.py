"""What each process does in test_gradients.py."""

import torch
from safetensors.torch import save_file
from torch import nn

from fusemix_core.engine import gradients
from fusemix_core.engine.gradients import Gradients
from fusemix_core.gathering import rank, total

SMALL = 8 * 30
"""Bytes of a bucket that some of the parameters below share."""


def loss_of(number):
    """(parameters by name, the loss of process `number`): each has others."""
    draw = torch.Generator().manual_seed(3)
    layers = [nn.Linear(5, 5).double() for _ in range(4)]
    layers.append(nn.Linear(5, 2))  # float32
    named = {n: nn.Parameter(torch.ones(3).double()) for n in ("first's", "nobody's")}
    for i, own in enumerate(layers):
        named |= {f"{i}.{n}": p for n, p in own.named_parameters()}
        named |= {"between": nn.Parameter(torch.ones(40).double())} if i == 2 else {}
    for parameter in named.values():
        parameter.data = torch.randn(parameter.shape, generator=draw).to(parameter.dtype)
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(number)).double()
    for layer in layers[:-1]:
        x = layer(x).tanh()
    loss = layers[-1](x.float()).square().sum().double()
    if number == 0:  # what only one process has: in the last bucket, and in one between others
        loss = loss + named["first's"].sum() + named["between"].square().sum()
    return named, loss


def share_gradients(folder):
    """Gradients in small buckets, which ones were sent before the backward pass came to its end,
    and those of a second pass."""
    gradients.BUCKET_BYTES = SMALL
    named, loss = loss_of(rank())
    averaged, early = Gradients(named.values()), []
    for bucket in averaged.buckets:
        send = bucket.send
        bucket.send = lambda group, send=send: (
            early.append(named["0.bias"].grad is None),
            send(group),
        )
    for name in ("first", "second"):
        for parameter in named.values():
            parameter.grad = None
        with averaged.averaged():
            total(loss).backward(retain_graph=True)
        found = {n: p.grad.contiguous() for n, p in named.items() if p.grad is not None}
        save_file(found, folder / f"{name}-{rank()}.safetensors")
    early = torch.tensor(early)
    save_file({"early": early}, folder / f"early-{rank()}.safetensors")


def wanted(count):
    """The gradients of the sum of all losses, of which `total` gives each process the value."""
    found = {}
    for number in range(count):
        named, loss = loss_of(number)
        loss.backward()
        for name, parameter in named.items():
            if parameter.grad is not None:
                found[name] = found.get(name, 0) + parameter.grad
    return found
