"""Makes the query networks of a collection: encoder, adapter and the scorer's columns in one."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from fusemix_core.data.media import medium, normalise_text
from fusemix_core.errors import FusemixError
from fusemix_core.fused import FusedModel
from fusemix_core.home import home
from fusemix_core.interfaces import Encoder, Network, Scorer, as_rows, takes_tokens
from fusemix_core.latents import exported, runtime
from fusemix_core.latents.exported import Exports
from fusemix_core.runs.reporter import Reporter
from fusemix_core.search.network import MAKING, SUFFIX, TEXT, TOKENS, QueryNetwork
from fusemix_core.search.state import State, fault
from fusemix_core.versions import version

LARGEST = 500_000_000
"""Bytes of an encoder in float32. The network of a larger one would fill disks."""
_CLOSE = 1e-4
"""How far scores and vectors of the network may be from the model's."""


class CantExportError(Exception):
    """Why a modality gets no query network."""


def query_networks(
    folder: Path, state: State, model: FusedModel, reporter: Reporter
) -> dict[str, dict[str, str]]:
    """`State.networks`, with those made that are missing or damaged.

    Args:
        folder: Of the collection, which is locked.
        state: Of the collection.
        model: Of the collection.
        reporter: Gets the progress.
    """
    found = {}
    for modality, takes in state.asks.items():
        known = dict(state.networks.get(modality, {}))
        by = runtime.absent(*MAKING) or f"{version()} {exported.versions()}"
        if takes != TEXT:
            continue
        sound = "file" in known and not fault(folder / f"{known['file']}{SUFFIX}")
        if sound or known.get("by") == by:  # or it would be in vain again
            found[modality] = known
        else:
            try:
                network = _made(state, model, modality, reporter)
            except CantExportError as why:
                found[modality] = {"reason": str(why), "by": by}
            except Exception as error:  # an encoder raises anything
                own = isinstance(error, FusemixError)
                found[modality] = {"reason": error.message if own else _first_line(error)}
            else:
                found[modality] = {"file": network.write(folder)}
    return found


def _made(state: State, model: FusedModel, modality: str, reporter: Reporter) -> QueryNetwork:
    """The query network of a modality. Raises `CantExportError`."""
    if package := runtime.absent(*MAKING):
        raise CantExportError(f"the package {package} is not installed")
    if takes_tokens(model.adapters[modality]):
        raise CantExportError(f"its adapter '{model.adapter_part(modality).name}' takes tokens")
    if model.encoders[modality].dtype != "float32":
        raise CantExportError(f"its encoder computes in {model.encoders[modality].dtype}")
    model = _on_cpu(model, modality)
    encoder = model.encoder(modality).load()
    view = model.encoders[modality].view
    network = encoder.network(view)
    if network is None:
        raise CantExportError(f"its encoder {encoder.spec.name} can't be exported")
    if 4 * sum(p.numel() for p in network.module.parameters()) > LARGEST:
        raise CantExportError(
            f"its encoder {encoder.spec.name} is larger than {LARGEST // 1_000_000} MB"
        )
    reporter.stage(f"Preparing quick queries of {modality}")
    texts = _texts(encoder)
    inputs = exported.inputs_of(encoder, network, view, texts[:4])
    if inputs is None or not set(inputs) <= set(TOKENS):
        raise CantExportError(f"its encoder {encoder.spec.name} takes more than tokens")
    making = _Making(state, model, modality, encoder, network, inputs)
    return making.checked(texts)


def _on_cpu(model: FusedModel, modality: str) -> FusedModel:
    """The model with its encoder on the CPU."""
    if model.device.type == "cpu":
        return model
    with TemporaryDirectory(prefix="fusemix-") as folder:
        model.save_pretrained(folder)
        sources = {modality: model.encoder(modality).spec}
        return FusedModel.from_pretrained(folder, device="cpu", encoders=sources)


def _texts(encoder: Encoder) -> list[str]:
    """Texts of all kinds, brought to the form in which queries come."""
    own = medium(TEXT)
    texts = map(normalise_text, (*own.cells(), *own.edges(encoder.spec).values()))
    return [text for text in texts if text]


class _Making:
    """The parts that one network is made of, and its making."""

    def __init__(
        self,
        state: State,
        model: FusedModel,
        modality: str,
        encoder: Encoder,
        network: Network,
        inputs: Mapping[str, Tensor],
    ) -> None:
        self.model, self.modality = model, modality
        self.encoder, self.network, self.inputs = encoder, network, inputs
        self.asks = list(state.asks)
        info = model.encoders[modality]
        self.exports = Exports(home(), info.fingerprint, info.view)
        self.lines = {
            t: _Line(model.scorer, modality, t, self.asks, model.dim) for t in state.takes
        }
        self.facts, self.tokenizer = self._tokens()
        self.facts |= {
            "model": state.weights,
            "encoder": info.fingerprint,
            "slopes": {target: line.slope for target, line in self.lines.items()},
        }

    def checked(self, texts: Sequence[str]) -> QueryNetwork:
        """The network, which agrees with the model on these texts. An encoder that was
        exported before is exported again only if it gives anything else."""
        kept = self.exports.find()
        try:
            return self._tried(kept or self._encoder(), texts)
        except CantExportError:
            if kept is None:
                raise
        return self._tried(self._encoder(), texts)

    def _tokens(self) -> tuple[dict[str, Any], bytes]:
        """(how texts become tokens, the tokenizer's JSON)"""
        with TemporaryDirectory(prefix="fusemix-") as folder:
            said = self.encoder.save_preprocessing(Path(folder))
            if not said.get("tokenizer"):
                name = self.encoder.spec.name
                raise CantExportError(f"its encoder {name} has no tokenizer to export")
            tokenizer = (Path(folder) / said["tokenizer"]).read_bytes()
        return {name: said.get(name) for name in ("prompt", "max_tokens")}, tokenizer

    def _encoder(self) -> Path:
        """The encoder as an ONNX file, kept under the home for the next index."""
        try:
            return self.exports.make(self.network, self.inputs)
        except FusemixError:
            raise
        except Exception as error:  # an exporter raises anything
            name = self.encoder.spec.name
            raise CantExportError(f"its encoder {name} can't be exported: {error}") from error

    def _tried(self, encoder: Path, texts: Sequence[str]) -> QueryNetwork:
        """The network with an exported encoder, if it agrees with the model."""
        try:
            model, weights = _joined(encoder, self._head())
            network = QueryNetwork(self.facts, weights, model, self.tokenizer)
            self._compare(network, texts)
        except (CantExportError, FusemixError):
            raise
        except Exception as error:  # an exporter and a runtime raise anything
            raise CantExportError(f"it can't be exported: {_first_line(error)}") from error
        return network

    def _head(self) -> bytes:
        """The adapter and the scorer's part, as an ONNX file."""
        with torch.no_grad():
            latents = self.network.module(**self.inputs)
        adapter = copy.deepcopy(self.model.adapters[self.modality]).cpu().float()
        module = _Head(adapter, self.model.scorer, self.modality, self.asks, self.lines)
        return exported.exported(Network(module.eval()), {"latents": latents})

    def _compare(self, network: QueryNetwork, texts: Sequence[str]) -> None:
        """Raise `CantExportError` unless the network agrees with the model."""
        scorer, modality = self.model.scorer, self.modality
        rows = self.model.encode(modality, texts)
        lifted = scorer.lift(rows, modality, self.asks, gallery=False)
        gallery = _directions(32, self.model.dim, seed=1)
        far = 0.0
        for i, text in enumerate(texts):
            asked = network.ask(text)
            far = max(far, float((torch.from_numpy(asked.lifted[0]) - lifted[i]).abs().max()))
            for target in self.lines:
                stored = scorer.lift(gallery, target, self.asks, gallery=True)
                expected = scorer.score(rows[i : i + 1], gallery, modality, target)[0]
                found = torch.from_numpy(asked.scores(stored.numpy(), target))
                far = max(far, float((found - expected).abs().max()))
        if not far <= _CLOSE:
            raise CantExportError(f"the exported network's vectors and scores differ by {far:.1g}")


class _Line:
    """A scorer's scores of one modality as a line: `slope` times the inner product of lifted
    vectors, plus a number that depends on the query only."""

    def __init__(
        self, scorer: Scorer, query: str, target: str, asks: Sequence[str], dim: int
    ) -> None:
        rows, gallery = _directions(16, dim, seed=2), _directions(16, dim, seed=3)
        stored = scorer.lift(gallery, target, asks, gallery=True)
        products = scorer.lift(rows, query, asks, gallery=False) @ stored.T
        scores = scorer.score(rows, gallery, query, target)
        x, y = (v - v.mean(dim=1, keepdim=True) for v in (products, scores))
        self.slope = float((x * y).sum() / x.square().sum())
        if not float((y - self.slope * x).abs().max()) <= _CLOSE:
            raise CantExportError(f"the scores of {type(scorer).__name__} can't be exported")
        self._score = scorer.prepare(gallery[:1], query, target)
        self._stored = stored[:1]

    def offset(self, rows: Tensor, lifted: Tensor) -> Tensor:
        """`[n, 1]`: the numbers to add to the products of queries, `rows` `[n, d]` and lifted."""
        return self._score(rows) - self.slope * (lifted @ self._stored.T)


class _Head(nn.Module):
    """Latents to lifted queries and the offsets of their scores."""

    def __init__(
        self,
        adapter: nn.Module,
        scorer: Scorer,
        modality: str,
        asks: Sequence[str],
        lines: Mapping[str, _Line],
    ) -> None:
        super().__init__()
        self.adapter, self.scorer, self.modality = adapter, scorer, modality
        self.asks, self.lines = asks, list(lines.values())

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        rows = normalize(self.adapter(as_rows(latents).float()), dim=1)
        lifted = self.scorer.lift(rows, self.modality, self.asks, gallery=False)
        return lifted, torch.cat([line.offset(rows, lifted) for line in self.lines], dim=1)


def _joined(encoder: Path, head: bytes) -> tuple[bytes, bytearray]:
    """OpenVINO's two files of the encoder with the head behind it."""
    import onnx
    import openvino

    first, second = onnx.load(encoder), onnx.load_from_string(head)
    link = [(first.graph.output[0].name, second.graph.input[0].name)]
    whole = onnx.compose.merge_models(
        onnx.compose.add_prefix(first, "encoder/"),
        onnx.compose.add_prefix(second, "head/"),
        io_map=[(f"encoder/{a}", f"head/{b}") for a, b in link],
    )
    model = openvino.convert_model(io.BytesIO(whole.SerializeToString()))
    for given in model.inputs:
        given.set_names({name.removeprefix("encoder/") for name in given.names})
    with TemporaryDirectory(prefix="fusemix-") as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        return path.read_bytes(), bytearray(path.with_suffix(".bin").read_bytes())


def _directions(count: int, dim: int, seed: int) -> Tensor:
    """Unit vectors `[count, dim]`."""
    draw = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, dim, generator=draw), dim=1)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
