"""What fusemix keeps on disk and reads again: models, checkpoints, latents, and its own notes."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from fuzz.target import Target

from fusemix_core.adapters.kernel import KernelAdapter
from fusemix_core.adapters.mlp import MlpAdapter
from fusemix_core.aligners.gradient import GradientAligner
from fusemix_core.benchmark.lines import add_line, key_of, read_lines
from fusemix_core.benchmark.page import page
from fusemix_core.benchmark.summary import is_whole, summarise
from fusemix_core.cli.console import duration
from fusemix_core.config import Part, Recipe, Training
from fusemix_core.data.hashes import HashMemory
from fusemix_core.engine import checkpoint
from fusemix_core.errors import ContractError
from fusemix_core.fused import EncoderInfo, FusedModel
from fusemix_core.interfaces import FitContext, PairedLatents, ResidentLatents
from fusemix_core.latents import shards
from fusemix_core.latents.exported import Exports
from fusemix_core.latents.shards import BadShardError, read_shard, shard_id, write_shard
from fusemix_core.latents.store import LatentStore
from fusemix_core.registry import registry
from fusemix_core.reports.run import best_step, history
from fusemix_core.runs.folder import MetricsLog, read_metrics
from fusemix_core.runs.rates import Rates
from fusemix_core.scorers.csls import CSLSScorer

Pair = tuple[Callable[[], Sequence[bytes]], Callable[[bytes, Path], object]]
SMALL = {"blocks": 1, "expansion": 1.0}


# -- saved models ----------------------------------------------------------------------------------


@cache
def model_files() -> dict[str, bytes]:
    """A model of two adapters and the `csls` scorer, by file name."""
    torch.manual_seed(0)
    text = KernelAdapter(3, 4, landmarks=2)
    text.prepare(torch.randn(5, 3))
    adapters = {"image": MlpAdapter(5, 4, **SMALL), "text": text}
    dims = {"image": 5, "text": 3}
    infos = {m: EncoderInfo(name=f"e-{m}", modality=m, dim=d, fingerprint="f", view="pooled",
                            takes=m) for m, d in dims.items()}  # fmt: skip
    scorer = CSLSScorer(neighbours=2, bank_size=8)
    rows = torch.nn.functional.normalize(torch.randn(6, 4), dim=1)
    scorer.fit(dict.fromkeys(dims, rows))
    parts = {"image": Part("mlp", SMALL), "text": Part("kernel", {"landmarks": 2})}
    model = FusedModel(adapters, infos, scorer, adapter_parts=parts, device="cpu",
                       recipe={"name": "r"}, metrics={"retrieval": {"mean_r1": 1.5}})  # fmt: skip
    with TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "m")
        return {p.name: p.read_bytes() for p in Path(folder, "m").iterdir()}


def model(file: str) -> Pair:
    """(seeds, read) of one file of a saved model; the digest is made to fit, as by an attacker."""

    def run(data: bytes, folder: Path) -> object:
        for name, content in model_files().items():
            (folder / name).write_bytes(data if name == file else content)
        if file == "model.safetensors":
            config = json.loads(model_files()["config.json"])
            config["weights_sha256"] = hashlib.sha256(data).hexdigest()
            (folder / "config.json").write_text(json.dumps(config))
        found = FusedModel.from_pretrained(folder, device="cpu")
        try:
            rows = {m: found.embed(m, torch.ones(2, i.dim)) for m, i in found.encoders.items()}
        except ContractError:  # weights so large that they overflow: nothing else tells
            return None
        first, second = list(rows)[:2]
        return found.similarity(rows[first], rows[second], first, second)

    return lambda: [model_files()[file]], run


# -- checkpoints -----------------------------------------------------------------------------------


@cache
def pairs() -> tuple[PairedLatents, PairedLatents]:
    def some(seed: int) -> PairedLatents:
        generator = torch.Generator().manual_seed(seed)
        links = torch.arange(8)[:, None].repeat(1, 2)
        widths = {"image": 5, "text": 3}
        tables = {m: ResidentLatents(torch.randn(8, d, generator=generator))
                  for m, d in widths.items()}  # fmt: skip
        return PairedLatents(tables, links)

    return some(0), some(1)


RECIPE = Recipe(
    "small",
    Part("gradient"),
    dim=4,
    adapter=Part("mlp", SMALL),
    mixup=Part("fusemix"),
    objective=Part("infonce"),
    training=Training(epochs=2, batch_size=2, ema=0.5),
)


def fit(folder: Path, resume: bool) -> object:
    context = FitContext(seed=0, checkpoints=folder, resume=resume)
    return GradientAligner().fit(*pairs(), RECIPE, context)


@cache
def checkpoint_files() -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        fit(Path(folder), resume=False)
        first = checkpoint.checkpoint_folders(Path(folder))[0]
        return {"name": first.name.encode()} | {p.name: p.read_bytes() for p in first.iterdir()}


def state(file: str) -> Pair:
    """(seeds, read) of one file of a checkpoint, from which a fit goes on."""

    def run(data: bytes, folder: Path) -> object:
        shutil.rmtree(folder / "c", ignore_errors=True)
        place = folder / "c" / checkpoint_files()["name"].decode()
        place.mkdir(parents=True)
        for name in (checkpoint.TENSORS, checkpoint.VALUES):
            (place / name).write_bytes(data if name == file else checkpoint_files()[name])
        return fit(folder / "c", resume=True)

    return lambda: [checkpoint_files()[file]], run


# -- latents ---------------------------------------------------------------------------------------

KEYS = np.arange(8, dtype=np.uint64).reshape(4, 2)


@cache
def shard_files() -> list[bytes]:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    facts = {"encoder": "é", "spec": "{}"}
    with TemporaryDirectory() as folder:
        plain = write_shard(Path(folder, "a"), KEYS, values.astype(np.float16), facts)
        tokens = write_shard(Path(folder, "b"), KEYS, values, facts, np.array([1, 1, 1, 1]))
        return [plain.path.read_bytes(), tokens.path.read_bytes()]


def read_latents(data: bytes, folder: Path) -> None:
    """The file as it is in a store, and once more with a checksum that fits."""
    for content in (data, resealed(data)):
        store = LatentStore(folder)
        path = store.folder / "f" / "pooled" / f"{shard_id(KEYS, 'float16')}{shards.SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        store.missing("f", "pooled", KEYS, "float16")
        store.views()
        try:
            shard = read_shard(path)
            shards.verify_shard(shard)
        except BadShardError:
            store.repair("f", "pooled", KEYS, "float16")
            continue
        if (shard.keys == KEYS).all() and len(shard) == len(KEYS):
            store.open("f", "pooled", KEYS, "float16").rows(torch.arange(len(KEYS)))


def resealed(data: bytes) -> bytes:
    """A shard with its checksum made to fit, where it can be."""
    try:
        head = 8 + struct.unpack("<Q", data[:8])[0]
        stated = json.loads(data[8:head])["__metadata__"]["checksum"].encode()
        blank = data[:head].replace(stated, b"0" * 64, 1) + data[head:]
        return data.replace(stated, hashlib.blake2b(blank, digest_size=32).hexdigest().encode(), 1)
    except Exception:
        return data


def find_export(data: bytes, folder: Path) -> None:
    exports = Exports(folder, "f", "pooled")
    exports.folder.mkdir(parents=True, exist_ok=True)
    good = hashlib.sha256(b"network").hexdigest()
    (exports.folder / f"{exports._name}-{good}.onnx").write_bytes(data)
    found = exports.find()
    assert (found is None) == (data != b"network")


@cache
def memory_file() -> bytes:
    with TemporaryDirectory() as folder:
        memory = HashMemory(Path(folder, "h.sqlite"))
        memory.remember((f"/a/{i}.png", (i, i, i, i), bytes([i]) * 16) for i in range(40))
        return memory.path.read_bytes()


def recall(data: bytes, folder: Path) -> None:
    (folder / "h.sqlite").write_bytes(data)
    memory = HashMemory(folder / "h.sqlite")
    found = memory.recall({f"/a/{i}.png": (i,) * 4 for i in range(50)} | {"\udcff": (1,) * 4})
    assert all(type(k) is bytes and len(k) == 16 for k in found.values())
    memory.remember([("/b.png", (1,) * 4, b"k" * 16)])
    assert not memory.warning or "Delete it" in memory.warning


# -- fusemix's own notes ---------------------------------------------------------------------------


def rate(data: bytes, folder: Path) -> None:
    path = folder / "rates.json"
    path.write_bytes(data)
    rates = Rates(path)
    for key in ("encode f cpu", "fit r auto"):
        duration(rates.seconds(key, 1000))
    rates.record("fit r cpu", 10, 2.0)
    assert Rates(path).seconds("fit r cpu", 10) == 2.0


def metrics() -> bytes:
    rows = [{"kind": "train", "step": i, "loss": 1 / (i + 1), "lr": 0.1} for i in range(3)]
    rows.insert(2, {"kind": "validation", "step": 1, "score": 0.5, "recall_at_1": 0.3})
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def read_curve(data: bytes, folder: Path) -> None:
    path = folder / "metrics.jsonl"
    path.write_bytes(data)
    rows = read_metrics(path)
    history(rows)
    best_step(rows)
    MetricsLog(path).on_step(2, {"loss": 0.1})
    assert read_metrics(path)[-1]["step"] == 2


FACTS = {"set": "one", "label": "a + b", "size": None, "batch": None, "budget": None,
         "versions": {"fusemix": "0"}, "test_items": "d"}  # fmt: skip


def results() -> bytes:
    lines = []
    for seed in (0, 1):
        for method in ("auto", "csa"):
            facts = {**FACTS, "seed": seed, "method": method}
            found = {"r1": 10.5, "r1_interval": [9, 12]}
            rest = {"pairs": {"train": 8, "validation": 2, "test": 3}, "seconds": 1.5,
                    "scorer": "csls", "test": {"cosine": found, "csls": found},
                    "zero_shot": {"z": {"csls": {"top1": 40.0}}}}  # fmt: skip
            lines.append({"key": key_of(facts), **facts, **rest})
    lines.append({"key": "x", **FACTS, "seed": 2, "method": "csa", "pairs": {}, "error": "no"})
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def read_results(data: bytes, folder: Path) -> None:
    path = folder / "results.jsonl"
    path.write_bytes(data)
    wanted = {line["key"]: line for line in map(json.loads, results().splitlines())}
    facts = {k: {n: v for n, v in line.items() if n in (*FACTS, "seed", "method")}
             for k, line in wanted.items()}  # fmt: skip
    kept = [n | facts[n["key"]] for n in read_lines(path) if n["key"] in facts and is_whole(n)]
    page(summarise(kept), kept, {})
    add_line(path, {"key": "k"})
    assert read_lines(path)[-1]["key"] == "k"


def folder_of(name: str, file: str) -> Callable[[bytes, Path], object]:
    """Reads an input as a file of a model's folder that the user names."""

    def run(data: bytes, folder: Path) -> object:
        (folder / file).write_bytes(data)
        return registry.encoder(f"{name}@{folder}")

    return run


HF = {"model_type": "vit", "hidden_size": 8, "architectures": ["ViTModel"], "vocab_size": 3,
      "torch_dtype": "float32"}  # fmt: skip
ST = [{"type": "sentence_transformers.models.Transformer", "path": ""},
      {"type": "sentence_transformers.models.Normalize", "path": "1"}]  # fmt: skip
JSON = (b"null", b"{}", b"[]", b"-1", b"1e400", b'"x"', b"true", b"NaN", b"99999999999", b'"os:x"',
        b'"mlp"', b'"./a.py:A"', b'"timm:x"', b'"fusemix/mlp"', b'"options": {"blocks": 99999999}',
        b'"name"', b'"dim"', b'"\\ud800"', b":", b'"__class__"')  # fmt: skip
SAFE = (b'"dtype":"', b"F32", b"F64", b"BF16", b"I64", b"U8", b"F8_E4M3", b'"shape":[', b"[0]",
        b'"data_offsets":[', b"]", b"\xff" * 8, b"\0" * 8, b"\0\0\xc0\x7f")  # fmt: skip
TARGETS = [
    Target("model-config", *model("config.json"), JSON),
    Target("model-weights", *model("model.safetensors"), SAFE),
    Target("checkpoint-values", *state("state.json"), JSON),
    Target("checkpoint-tensors", *state("state.safetensors"), SAFE),
    Target("shard", shard_files, read_latents, (*SAFE, b'"lengths"', b'"__metadata__"')),
    Target("export", lambda: [b"network"], find_export),
    Target("hash-memory", lambda: [memory_file()], recall, (b"SQLite format 3\0", b"hashes")),
    Target("rates", lambda: [b'{"encode f cpu": 12.5, "fit r cpu": 3}'], rate, (*JSON, b"5e-324")),
    Target("metrics", lambda: [metrics()], read_curve, (*JSON, b'"step"', b'"kind"', b'"train"')),
    Target("bench-results", lambda: [results()], read_results, (*JSON, b'"test"', b'"seconds"')),
    Target("hf-folder", lambda: [json.dumps(HF).encode()], folder_of("hf:x", "config.json"), JSON),
    Target("st-folder", lambda: [json.dumps(ST).encode()], folder_of("st:x", "modules.json"), JSON),
]
