"""Exported models in a process that can't import fusemix, on two runtimes, against the model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import started
import torch
from loaded import shallow_encoders
from PIL import Image
from torch.nn.functional import normalize

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.adapters.wide import WideAdapter
from fusemix_core.errors import ConfigError
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.interfaces import Adapter
from fusemix_core.jobs.export import export
from fusemix_core.latents import exported
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.scorers.csls import CSLSScorer
from fusemix_core.testing import check_exporter

TEXTS = ["a map of the rivers of Europe", "two dogs", "snow"]

CHILD = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("fusemix"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
"""

INPUTS = """
import json, pathlib
import numpy as np
from PIL import Image
from tokenizers import Tokenizer

folder = pathlib.Path(sys.argv[1])
config = json.loads((folder / "config.json").read_text())
texts = config["modalities"]["text"]["preprocessing"]
tokenizer = Tokenizer.from_file(str(folder / "text" / texts["tokenizer"]))
tokenizer.enable_truncation(texts["max_tokens"])
tokenizer.enable_padding(pad_id=texts["pad_token_id"])
rows = tokenizer.encode_batch([texts["prompt"] + t for t in json.loads(sys.argv[2])])
columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
images = config["modalities"]["image"]["preprocessing"]
side = images["input_size"][1]
whole = Image.open(sys.argv[3])  # its shorter side is what the model wants before cropping
left, top = round((whole.width - side) / 2), round((whole.height - side) / 2)
pixels = np.asarray(whole.crop((left, top, left + side, top + side)), np.float32) / 255
pixels = (pixels - np.float32(images["mean"])) / np.float32(images["std"])
inputs = {
    "text": {n: np.array([getattr(r, columns[n]) for r in rows], np.int64)
             for n in config["modalities"]["text"]["inputs"]},
    "image": {"pixels": pixels.transpose(2, 0, 1)[None].astype(np.float32)},
}
found = {}
for modality, one in config["modalities"].items():
    path = folder / one["file"]
    names = one["outputs"]
    if path.suffix == ".onnx":
        import onnxruntime
        values = onnxruntime.InferenceSession(path).run(names, inputs[modality])
    else:
        import openvino
        how = {"INFERENCE_PRECISION_HINT": "f32"}
        model = openvino.Core().compile_model(path, "CPU", how)
        done = model(inputs[modality])
        values = [done[name] for name in names]
    found |= {f"{modality}.{name}": value for name, value in zip(names, values)}
np.savez(sys.argv[4], **found)
"""


def kernel(dim: int, root: bool) -> KernelAdapter:
    """A kernel map of 40 made-up landmarks."""
    adapter = KernelAdapter(dim, 24, landmarks=40).eval()
    latents = torch.randn(60, dim, generator=torch.Generator().manual_seed(1))
    adapter.prepare(latents.abs() ** 3 if root else latents)
    assert adapter.plain is not root
    return adapter


def wide(dim: int) -> WideAdapter:
    adapter = WideAdapter(dim, 24, hidden=32).eval()
    adapter.prepare(torch.randn(60, dim, generator=torch.Generator().manual_seed(1)))
    return adapter


def made(adapters: dict[str, Adapter], text: str = "layers-middle-last") -> FusedModel:
    """A model of the starter's encoders with these adapters, scored with csls."""
    infos = {}
    views = {"image": "pooled", "text": text}
    widths = {"image": 1280, "text": 384 if text == "pooled" else 768}
    for modality, name in (("image", "efficientnet-lite0"), ("text", "minilm")):
        spec = registry.encoder(name)
        infos[modality] = EncoderInfo.of(
            spec,
            modality=modality,
            dim=widths[modality],
            fingerprint=fingerprint(spec, "float32"),
            view=views[modality],
        )
    scorer = CSLSScorer(neighbours=5)
    draw = torch.Generator().manual_seed(3)
    scorer.fit({m: normalize(torch.randn(50, 24, generator=draw), dim=1) for m in adapters})
    return FusedModel(adapters, infos, scorer, device="cpu")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A picture whose shorter side is 256, so that it is only cropped."""
    path = tmp_path_factory.mktemp("picture") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (256, 320, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def in_a_process_of_its_own(code, *arguments):
    done = started.run("-c", CHILD + code, *arguments, libraries=started.ENCODERS)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=["shallow", pytest.param("whole", marks=pytest.mark.long)])
def model(request):
    """A model that sentence-transformers can't express; its encoders have few layers, or all."""
    torch.manual_seed(0)
    model = made({"image": kernel(1280, root=True), "text": wide(768)})
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "shallow":
            shallow_encoders(patch)
        for modality in model.modalities:
            model.encoder(modality).load()
    return model


@pytest.fixture(scope="module")
def exported_once(model):
    """OpenVINO's files are converted from the graphs of the target `onnx`, which take seconds each
    to export."""
    graphs, export_graph = {}, exported.exported

    def kept(network, inputs, outputs):
        if (key := (*inputs, *outputs)) not in graphs:
            graphs[key] = export_graph(network, inputs, outputs)
        return graphs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported, "exported", kept)
        yield


# A short form of openvino is in tests/jobs/test_export_adapters.py.
@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", pytest.param("openvino", marks=pytest.mark.long)])
def test_a_runtime_without_fusemix_gives_what_the_model_does(
    target, model, exported_once, picture, tmp_path
):
    lines = export(model, target, tmp_path / "out")
    in_a_process_of_its_own(
        INPUTS, tmp_path / "out", json.dumps(TEXTS), picture, tmp_path / "found.npz"
    )
    found = np.load(tmp_path / "found.npz")
    for modality, items in (("image", [picture]), ("text", TEXTS)):
        wanted = {"vector": None, "gallery_vector": "gallery", "query_vector": "query"}
        for name, form in wanted.items():
            expected = model.encode(modality, items, backend="eager", form=form)
            got = torch.from_numpy(found[f"{modality}.{name}"])
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
    assert str(tmp_path / "out") in lines[0]


ST = """
import json
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu")
kinds = {type(m).__module__.partition(".")[0] for m in model.modules()}
assert not [k for k in kinds if k.startswith("fusemix") or "remote" in k], kinds
np.savez(
    sys.argv[4],
    text=model.encode(json.loads(sys.argv[2])),
    image=model.encode([Image.open(sys.argv[3])]),
)
"""


@pytest.mark.slow
def test_sentence_transformers_loads_the_folder_and_gives_what_the_model_does(picture, tmp_path):
    torch.manual_seed(0)
    adapters = {"image": kernel(1280, root=False), "text": kernel(384, root=False)}
    model = made(adapters, text="pooled")
    lines = export(model, "st", tmp_path / "out")
    long = "a very long text " * 200
    in_a_process_of_its_own(
        ST, tmp_path / "out", json.dumps([*TEXTS, long]), picture, tmp_path / "found.npz"
    )
    found = np.load(tmp_path / "found.npz")
    for modality, items in (("image", [picture]), ("text", [*TEXTS, long])):
        expected = model.encode(modality, items, backend="eager")
        torch.testing.assert_close(torch.from_numpy(found[modality]), expected, atol=1e-5, rtol=0)
    assert "no place for the scorer csls" in lines[-1]
    check_exporter("st", model=model).raise_if_failed()


@pytest.mark.parametrize(
    ("image", "text", "view", "reason"),
    [
        (kernel(1280, root=True), kernel(384, root=False), "pooled", "square root"),
        (wide(1280), kernel(384, root=False), "pooled", "The adapter 'wide' of image"),
        (kernel(1280, root=False), kernel(768, root=False), "layers-middle-last", "the view"),
    ],
)
def test_what_sentence_transformers_can_not_express_is_named(image, text, view, reason, tmp_path):
    model = made({"image": image, "text": text}, text=view)
    with pytest.raises(ConfigError, match=reason) as caught:
        export(model, "st", tmp_path / "out")
    assert "--recipe exportable" in caught.value.hint and "22.7%" in caught.value.hint
    assert not list(tmp_path.iterdir())
