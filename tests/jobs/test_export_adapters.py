"""Adapters as ONNX graphs: the default recipe's with all its members, and one of tokens."""

import onnxruntime
import openvino
import pytest
import torch
from torch.nn.functional import normalize
from toys import TokenMean

from fusemix_core.adapters.mixture import MixtureAdapter
from fusemix_core.exports.onnx import OUTPUTS, OpenVinoExporter, Vectors
from fusemix_core.interfaces import Network, Padded
from fusemix_core.latents.exported import exported
from fusemix_core.scorers.csls import CSLSScorer

MEMBERS = [
    {"name": "kernel", "dim": 8, "options": {"landmarks": 5}},
    {"name": "wide", "dim": 4, "options": {"hidden": 16}},
    {"name": "mlp", "dim": 4, "options": {"blocks": 1}},
]


@pytest.mark.slow
def test_a_mixture_gives_the_same_in_onnxruntime_and_openvino(tmp_path):
    torch.manual_seed(0)
    adapter = MixtureAdapter(20, 16, members=MEMBERS).eval()
    adapter.members[0].prepare(torch.randn(30, 20).abs() ** 3)
    adapter.members[1].prepare(torch.randn(30, 20))
    scorer = CSLSScorer(neighbours=3)
    scorer.fit({m: normalize(torch.randn(30, 16), dim=1) for m in ("image", "text")})
    module = Vectors(adapter, scorer, "image", ("image", "text"), True).eval()
    graph = exported(Network(module, (0,)), {"latents": torch.randn(4, 20)}, OUTPUTS)
    session = onnxruntime.InferenceSession(graph)
    path = tmp_path / "model.onnx"
    path.write_bytes(graph)
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(OpenVinoExporter()._converted(path), "CPU", exact)
    for count in (1, 9):
        latents = torch.randn(count, 20)
        given = {"latents": latents.numpy()}
        with torch.no_grad():
            expected = module(latents=latents)
        done = compiled(given)
        for found in (session.run(list(OUTPUTS), given), [done[name] for name in OUTPUTS]):
            for got, wanted in zip(found, expected, strict=True):
                torch.testing.assert_close(torch.from_numpy(got), wanted, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_an_adapter_of_tokens_takes_any_number_of_them():
    torch.manual_seed(0)
    adapter, scorer = TokenMean(20, 16).eval(), CSLSScorer(neighbours=3)
    scorer.fit({m: normalize(torch.randn(30, 16), dim=1) for m in ("image", "text")})
    module = Vectors(adapter, scorer, "image", ("image", "text"), True).eval()
    mask = torch.arange(5) < torch.tensor([[5], [2], [1], [4]])
    given = {"tokens": torch.randn(4, 5, 20), "mask": mask}
    session = onnxruntime.InferenceSession(exported(Network(module, (0, 1)), given, OUTPUTS))
    for count, length in ((1, 1), (3, 9)):
        tokens, mask = torch.randn(count, length, 20), torch.rand(count, length) < 0.6
        mask[:, 0] = True
        inputs = {"tokens": tokens.numpy(), "mask": mask.numpy()}
        found = torch.from_numpy(session.run(["vector"], inputs)[0])
        expected = normalize(adapter(Padded(tokens, mask)), dim=1)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
