"""The exports `onnx` and `openvino`: raw inputs to vectors in one file for each modality."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.errors import ConfigError, MissingDependencyError
from fusemix_core.exports.base import Exporter, ExportSource
from fusemix_core.fused import FusedModel
from fusemix_core.interfaces import Network, Padded, Scorer, as_rows, takes_tokens
from fusemix_core.latents import exported
from fusemix_core.versions import version

FORMAT = "fusemix-onnx-1"
OUTPUTS = ("vector", "gallery_vector", "query_vector")
"""Names that no layer of an encoder has: a graph takes each name once."""

README = """# {names} in one space

Exported by fusemix {version}. `config.json` names the inputs and outputs of each model, and its
preprocessing. All outputs are float32.

- `vector` `[n, {dim}]` has unit norm: inner products are cosines.
{lifted}
```python
{code}
```
"""

LIFTED = """- `gallery_vector` and `query_vector` have more columns. Their inner product ranks as
  the model's scorer does. Store the gallery's in any index for inner products.
"""

CODE = {
    ".onnx": """import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("{modality}/model.onnx")
inputs = {inputs}
vector = session.run(["vector"], inputs)[0]""",
    ".xml": """import numpy as np, openvino

model = openvino.Core().compile_model(
    "{modality}/model.xml", "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}}
)
inputs = {inputs}
vector = model(inputs)["vector"]""",
}


@dataclass(frozen=True)
class Graph:
    """A modality to be exported: its module, inputs of a batch by name, and what it begins with."""

    module: nn.Module
    inputs: dict[str, Tensor]
    axes: tuple[int, ...]
    outputs: tuple[str, ...]
    begins: str


class OnnxExporter(Exporter):
    """A folder for each modality with `model.onnx`: encoder, adapter, unit norm, scorer's columns.

    A modality whose encoder can't be exported begins with its latents; one whose adapter takes
    tokens, with these and their mask. Beside the models are
    `config.json`, what preprocessing needs, such as `tokenizer.json`, and a README.
    """

    suffix = ".onnx"

    def check(self, source: ExportSource) -> None:
        if package := exported.missing():
            raise MissingDependencyError.of("fusemix export", package, exported.EXTRA)

    def write(self, source: ExportSource, folder: Path) -> Sequence[str]:
        model = source.model
        described = {}
        for modality in model.modalities:
            source.reporter.stage(f"Exporting {modality}")
            own = folder / modality
            own.mkdir()
            described[modality] = self._modality(model, modality, own)
        config = {
            "format": FORMAT,
            "fusemix": version(),
            "dim": model.dim,
            "scorer": model.scorer_name,
            "columns": list(model.modalities) if _lifts(model) else [],
            "modalities": described,
        }
        text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        code = self._code(described)
        values = {"names": " and ".join(described), "version": version(), "dim": model.dim}
        lifted = LIFTED if _lifts(model) else ""
        readme = README.format(**values, lifted=lifted, code=code)
        (folder / "README.md").write_text(readme, encoding="utf-8")
        return ["In the folder {out}:", code]

    def _modality(self, model: FusedModel, modality: str, folder: Path) -> dict[str, Any]:
        graph, preprocessing = _graph(model, modality, folder)
        network = Network(graph.module.eval(), graph.axes)
        path = folder / "model.onnx"
        try:
            path.write_bytes(exported.exported(network, graph.inputs, graph.outputs))
        except Exception as error:  # an exporter raises anything
            raise ConfigError(
                f"{modality} can't be exported to ONNX, with the adapter "
                f"'{model.adapter_part(modality).name}': {first_line(error)}",
                "A kernel or linear map can be: fusemix align … --recipe kcca",
            ) from error
        file = self._converted(path)
        return {
            "file": f"{folder.name}/{file.name}",
            "takes": model.encoders[modality].takes,
            "encoder": model.encoders[modality].name,
            "begins_with": graph.begins,
            "inputs": {
                name: {"dtype": _dtype(value), "shape": _shape(value, graph)}
                for name, value in graph.inputs.items()
            },
            "outputs": list(graph.outputs),
            "preprocessing": preprocessing,
        }

    def _converted(self, path: Path) -> Path:
        return path

    def _code(self, described: Mapping[str, Any]) -> str:
        modality, one = next(iter(described.items()))
        inputs = ", ".join(
            f'"{name}": np.ones({tuple(2 if type(n) is str else n for n in of["shape"])}, '
            f'"{of["dtype"]}")'
            for name, of in one["inputs"].items()
        )
        return CODE[self.suffix].format(modality=modality, inputs=f"{{{inputs}}}")


class OpenVinoExporter(OnnxExporter):
    """The same as OpenVINO's own files, `model.xml` and `model.bin`, in float32."""

    suffix = ".xml"

    def _converted(self, path: Path) -> Path:
        import openvino

        target = path.with_suffix(".xml")
        openvino.save_model(openvino.convert_model(path), target, compress_to_fp16=False)
        path.unlink()
        return target


class Vectors(nn.Module):
    """Latents to what is stored: the embedding, and its forms for an index if these are longer."""

    def __init__(
        self,
        adapter: nn.Module,
        scorer: Scorer,
        modality: str,
        against: tuple[str, ...],
        lifts: bool,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network, self.adapter = network, adapter
        self.scorer, self.modality, self.against, self.lifts = scorer, modality, against, lifts

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        rows = normalize(self.adapter(self._latents(inputs)), dim=1)
        if not self.lifts:
            return (rows,)
        forms = (self.scorer.lift(rows, self.modality, self.against, g) for g in (True, False))
        return (rows, *forms)

    def _latents(self, inputs: Mapping[str, Tensor]) -> Tensor | Padded:
        if "tokens" in inputs:
            return Padded(inputs["tokens"], inputs["mask"])
        latents = inputs["latents"] if self.network is None else self.network(**inputs)
        return as_rows(latents).float()


def _graph(model: FusedModel, modality: str, folder: Path) -> tuple[Graph, dict[str, Any]]:
    """What to export of a modality, and the description of its preprocessing."""
    info, lifts = model.encoders[modality], _lifts(model)
    adapter = copy.deepcopy(model.adapters[modality]).cpu().float().eval()
    outputs = OUTPUTS if lifts else OUTPUTS[:1]
    given = adapter, model.scorer, modality, model.modalities, lifts
    if takes_tokens(adapter):  # encoders give tokens of their own number per item
        mask = torch.arange(5) < torch.tensor([[5], [2], [1], [4]])
        tokens = {"tokens": torch.randn(4, 5, info.dim), "mask": mask}
        return Graph(Vectors(*given), tokens, (0, 1), outputs, "tokens"), {}
    encoder = model.encoder(modality).load()
    network, inputs = encoder.network(info.view), None
    if network is not None:
        items = list(encoder.sample_items(encoder.spec))[:4] or samples(info.takes)
        inputs = exported.inputs_of(encoder, network, info.view, items)
    if network is None or inputs is None:
        latents = {"latents": torch.randn(4, info.dim)}
        return Graph(Vectors(*given), latents, (0,), outputs, "latents"), {}
    module = Vectors(*given, network.module)
    preprocessing = dict(encoder.save_preprocessing(folder))
    return Graph(module, inputs, network.axes, outputs, "items"), preprocessing


def samples(takes: str) -> list[Any]:
    """Items of a medium, whatever they show."""
    if takes == "text":
        return ["a map of the rivers", "two dogs", "a red bicycle leans on a wall", "snow"]
    if takes == "image":
        from PIL import Image

        pixels = np.random.default_rng(0).integers(0, 256, (4, 240, 320, 3), dtype=np.uint8)
        return [Image.fromarray(one) for one in pixels]
    return []


def _lifts(model: FusedModel) -> bool:
    """Whether the scorer's vectors for an index are longer than embeddings."""
    rows, first = torch.eye(1, model.dim), model.modalities[0]
    try:
        lifted = model.scorer.lift(rows, first, model.modalities, gallery=True)
    except ConfigError:
        return False
    return lifted.shape[1] > model.dim


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of its message, as plain text."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # torch's exporter writes in colours
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _shape(value: Tensor, graph: Graph) -> list[int | str]:
    """The shape, with letters for the axes that may have any size."""
    letters = iter("ntuv")
    return [next(letters) if i in graph.axes else size for i, size in enumerate(value.shape)]
