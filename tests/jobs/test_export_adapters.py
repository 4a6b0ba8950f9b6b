"""The adapter of the default recipe as an ONNX graph: all its members, any number of items."""

import onnxruntime
import torch
from torch.nn.functional import normalize

from fusemix_core.adapters.mixture import MixtureAdapter
from fusemix_core.exports.onnx import OUTPUTS, Vectors
from fusemix_core.interfaces import Network
from fusemix_core.latents.exported import exported
from fusemix_core.scorers.csls import CSLSScorer

MEMBERS = [
    {"name": "kernel", "dim": 8, "options": {"landmarks": 5}},
    {"name": "wide", "dim": 4, "options": {"hidden": 16}},
    {"name": "mlp", "dim": 4, "options": {"blocks": 1}},
]


def test_a_mixture_gives_the_same_in_onnxruntime():
    torch.manual_seed(0)
    adapter = MixtureAdapter(20, 16, members=MEMBERS).eval()
    adapter.members[0].prepare(torch.randn(30, 20).abs() ** 3)
    adapter.members[1].prepare(torch.randn(30, 20))
    scorer = CSLSScorer(neighbours=3)
    scorer.fit({m: normalize(torch.randn(30, 16), dim=1) for m in ("image", "text")})
    module = Vectors(adapter, scorer, "image", ("image", "text"), True).eval()
    graph = exported(Network(module, (0,)), {"latents": torch.randn(4, 20)}, OUTPUTS)
    session = onnxruntime.InferenceSession(graph)
    for count in (1, 9):
        latents = torch.randn(count, 20)
        found = session.run(list(OUTPUTS), {"latents": latents.numpy()})
        with torch.no_grad():
            expected = module(latents=latents)
        for got, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(got), wanted, atol=1e-5, rtol=0)
