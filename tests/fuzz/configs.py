"""What users write by hand: run configs, recipes, benchmarks, settings, names, prompts."""

from __future__ import annotations

from pathlib import Path

import tomli_w
from fuzz.target import Target

from fusemix_core.benchmark.config import bench_config
from fusemix_core.config import RunConfig, read_toml, to_dict
from fusemix_core.evaluation.prompt_files import read_classes, read_templates
from fusemix_core.jobs.measured_data import measured_data
from fusemix_core.overrides import override_recipe
from fusemix_core.registry import registry
from fusemix_core.runs.config import build_config, find_recipe

TOYS = Path(__file__).parents[1] / "toys.py"
ENCODERS = {"image": f"{TOYS}:ToyImage", "text": f"{TOYS}:ToyText"}


def run_config() -> bytes:
    data = {"source": ["pairs.csv"], "columns": {"text": "alt,caption"}, "max_bad": 0.5,
            "split_column": "s", "validation_fraction": 0.2}  # fmt: skip
    recipe = {"name": "fusemix", "training": {"epochs": 3, "lr": 1e-3}, "dim": 8,
              "adapter": {"name": "mlp", "options": {"blocks": 1}}}  # fmt: skip
    table = {"encoders": ENCODERS, "data": data, "recipe": recipe, "seed": 3, "device": "cpu",
             "views": {"text": "pooled"}, "fixed": ["text"]}  # fmt: skip
    return tomli_w.dumps(table).encode()


def bench_table() -> bytes:
    own = {"source": "pairs.csv", "encoders": ENCODERS, "pairs": [40, "all"],
           "views": {"text": ["pooled"]}, "methods": ["auto"],
           "zero_shot": {"z": {"source": "z.csv", "modality": "image"}}}  # fmt: skip
    small = {"recipe": "fusemix", "set": ["dim=8"], "label": "small"}
    table = {"methods": ["auto", small], "seeds": [0, 1], "batch": 8, "budget": 100,
             "device": "cpu", "sets": {"one": own}}  # fmt: skip
    return tomli_w.dumps(table).encode()


def _toml(data: bytes, folder: Path) -> dict:
    path = folder / "a.toml"
    path.write_bytes(data)
    return read_toml(path)


def read_run(data: bytes, folder: Path) -> None:
    config, specs = build_config(_toml(data, folder))
    assert isinstance(config, RunConfig) and set(config.views) == set(specs)
    tomli_w.dumps({k: v for k, v in to_dict(config).items() if k != "recipe"})


def read_bench(data: bytes, folder: Path) -> None:
    checked = bench_config(_toml(data, folder), folder)
    for paired in checked.sets:
        assert checked.combinations(paired) and checked.methods_of(paired)


def read_measured(data: bytes, folder: Path) -> None:
    run = folder / "run"
    (run / "model").mkdir(parents=True, exist_ok=True)
    (run / "config.toml").write_bytes(data)
    for given in ({}, {"source": ["pairs.csv"], "max_bad": 0.1}):
        found = measured_data(run, given, None, None)
        assert found.split in ("test", "all") and type(found.seed) is int


def apply_settings(data: bytes, folder: Path) -> None:
    texts = data.decode("utf-8", "surrogateescape").split("|")
    recipe = override_recipe(find_recipe("fusemix"), texts)
    find_recipe(recipe)


def look_up(data: bytes, folder: Path) -> None:
    name = data.decode("utf-8", "surrogateescape")
    if ".py" in name and str(TOYS) not in name:
        return  # a file that the user names is run, as it is meant
    assert registry.encoder(name.replace("FOLDER", str(folder))).name


def look_up_part(data: bytes, folder: Path) -> None:
    name = data.decode("utf-8", "surrogateescape")
    if ".py" not in name:
        assert registry.component("adapter", name).name


def read_prompts(data: bytes, folder: Path) -> None:
    path = folder / ("a.json" if b'"' in data else "a.txt")
    path.write_bytes(data)
    for one in read_classes(path):
        one.encode()


def read_prompt_templates(data: bytes, folder: Path) -> None:
    path = folder / "a.txt"
    path.write_bytes(data)
    for one in read_templates(path):
        one.replace("{}", "x").encode()


TOML = (b"name", b"[recipe]\n", b"[data]\n", b"[encoders]\n", b" = 3\n", b' = "x"\n', b"inf",
        b"nan", b"options", b"[[sets]]\n", b"[sets.a]\n", b"encoders = 3\n",
        b"seeds = 1000000000000\n",
        b'{name = "mlp"}', b"1979-05-27", b"sets.one.", b"= [[]]\n", b"= {}\n", b'"cuda:9"',
        b"methods = [{}]\n", b"views.text = 3\n", b"label = [1]\n")  # fmt: skip
SETTINGS = (b"adapter", b".options", b"=3", b"=none", b"=", b".", b"|", b"adapters", b"training",
            b".epochs=", b"={}", b"=[1]", b"optimiser.betas=", b"name=", b"views.text=", b"mixup",
            b"|adapter=3|adapter.blocks=1", b"|dim=nan", b".name=")  # fmt: skip
NAMES = (b"@", b":", b"/", b"timm:", b"st:", b"hf:", b"video:", b"@FOLDER", b"~nobody/",
         b"fusemix/", b".py:", b"@/", b"..", b" ")  # fmt: skip
TARGETS = [
    Target("run-config", lambda: [run_config()], read_run, TOML),
    Target("bench-config", lambda: [bench_table()], read_bench, TOML),
    Target("measured-run", lambda: [run_config()], read_measured, TOML),
    Target(
        "settings",
        lambda: [
            b"training.epochs=20|dim=256|adapter=linear",
            b"adapters.text=linear|adapters.text.bias=false|mixup=none",
            b'adapter.blocks=2|optimiser="lion"|optimiser.betas=[0.9,0.99]',
            b'training={epochs=3}',
        ],
        apply_settings,
        SETTINGS,
    ),
    Target(
        "encoder-name",
        lambda: [f"{TOYS}:ToyImage".encode(), f"{TOYS}:ToyText@FOLDER".encode(), b"timm:resnet18",
                 b"efficientnet-lite0", b"fusemix-starter/minilm", b"timm:vit_tiny@FOLDER"],
        look_up,
        NAMES,
    ),
    Target("component-name", lambda: [b"identity", b"fusemix/mlp"], look_up_part, NAMES),
    Target(
        "classes",
        lambda: ["cat\ndog\n  \nélan\n".encode(), b'["cat", "dog"]'],
        read_prompts,
        (b'["', b'"]', b'"a"', b'"\\ud800"', b"cat\n"),
    ),
    Target("templates", lambda: [b"a photo of a {}.\nthe {}\n"], read_prompt_templates,
           (b"{}", b"{", b"{0}", b"{!r}")),
]  # fmt: skip
