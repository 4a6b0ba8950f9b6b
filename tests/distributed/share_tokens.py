"""What each process does in test_tokens.py."""

import torch
from fusemix_freeze_align.objective import TokenInfoNCE
from safetensors.torch import save_file
from toys import TokenMean

from fusemix_core.engine.gradients import Gradients
from fusemix_core.gathering import rank
from fusemix_core.interfaces import Batch, Padded, Step


class GivenAllRows(TokenInfoNCE):
    """Another loss, that reads all rows."""

    def forward(self, step):
        image, text = (torch.nn.functional.normalize(x, dim=1) for x in step.embeddings.values())
        pooled = sum(x.filled().pow(3).mean() for x in step.tokens.values())
        return (image @ text.T).logsumexp(dim=1).mean() + pooled


OBJECTIVES = {"gathers": TokenInfoNCE, "given all rows": GivenAllRows}


def results(name):
    """The loss of a batch of nine rows, some without a picture, and the parameters' gradients."""
    draw = torch.Generator().manual_seed(0)
    latents = {}
    for modality, count, width in (("image", 6, 5), ("text", 8, 4)):
        x = torch.randn(9, count, width, generator=draw, dtype=torch.float64)
        lengths = torch.randint(1, count + 1, (9,), generator=draw)
        latents[modality] = Padded(x, torch.arange(count) < lengths[:, None])
    links = torch.arange(18).reshape(9, 1, 2)
    links[[1, 6], :, 0] = -1
    latents["image"].mask[[1, 6]] = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapters = {m: TokenMean(d, 3).double() for m, d in (("image", 5), ("text", 4))}
    objective = OBJECTIVES[name]().double()
    loss = objective(Step(Batch(latents, links), adapters))
    named = {f"{m}/{n}": p for m, a in adapters.items() for n, p in a.named_parameters()}
    named["temperature"] = objective.temperature
    with Gradients(named.values()).averaged():
        loss.backward()
    grads = {n: p.grad for n, p in named.items() if p.grad is not None}
    return {"loss": loss.detach(), **grads}


def share_tokens(folder):
    found = {f"{name}/{k}": v for name in OBJECTIVES for k, v in results(name).items()}
    save_file(found, folder / f"{rank()}.safetensors")
