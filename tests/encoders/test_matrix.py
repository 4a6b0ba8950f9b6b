"""Latents that exist already: `npy:FILE`, and arrays in Python."""

from __future__ import annotations

import json
import shlex

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import fusemix_core
from fusemix_core import testing
from fusemix_core.benchmark.run import bench
from fusemix_core.cli.app import app
from fusemix_core.data.matrices import MatrixReader, read_ids, read_matrix
from fusemix_core.encoders.matrix import MatrixEncoder
from fusemix_core.errors import ConfigError, DataError
from fusemix_core.fused import FusedModel
from fusemix_core.registry import registry

ROWS = 80
CPU = torch.device("cpu")


@pytest.fixture
def latents():
    """(images `[80, 12]`, texts `[80, 9]`) of the same causes."""
    random = np.random.default_rng(0)
    causes = random.standard_normal((ROWS, 6))
    return tuple(
        (causes @ random.standard_normal((6, width))).astype(np.float32) for width in (12, 9)
    )


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(matrix, path, **more):
    if path.suffix == ".npy":
        np.save(path, matrix)
    elif path.suffix == ".npz":
        np.savez(path, latents=matrix, **more)
    elif path.suffix == ".safetensors":
        save_file({"latents": torch.from_numpy(matrix)}, path)
    else:
        pq.write_table(pa.table({"latents": list(matrix), **more}), path)


def encoder(name, modality="image"):
    spec = registry.encoder(name, modality)
    return registry.target_of(spec).load(spec, CPU, torch.float32)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors", ".parquet"])
def test_rows_are_latents_by_their_number(suffix, latents, tmp_path):
    write(latents[0], tmp_path / f"img{suffix}")
    found = encoder(f"npy:img{suffix}")
    rows = found.encode(found.collate(["0", "7", "79"]))
    assert torch.equal(rows, torch.from_numpy(latents[0][[0, 7, 79]]))


def test_it_passes_the_conformance_kit(latents, tmp_path):
    write(latents[0], tmp_path / "img.npy")
    testing.check_encoder("npy:img.npy").raise_if_failed()


def test_ids_are_lines_beside_the_file_or_in_it(latents, tmp_path):
    names = [f"figure {i}" for i in range(ROWS)]
    write(latents[0], tmp_path / "beside.npy")
    (tmp_path / "beside.ids.txt").write_text("\n".join(names))
    write(latents[0], tmp_path / "within.npz", ids=np.array(names))
    write(latents[0], tmp_path / "column.parquet", id=names)
    for name in ("beside.npy", "within.npz", "column.parquet"):
        found = encoder(f"npy:{name}")
        assert torch.equal(
            found.encode(found.collate(["figure 3"])), torch.from_numpy(latents[0][[3]])
        )
        with pytest.raises(DataError, match="no latents for '3'"):
            found.collate(["3"])


def test_other_ids_are_another_encoder(latents, tmp_path):
    write(latents[0], tmp_path / "img.npy")
    before = registry.encoder("npy:img.npy", "image").options
    (tmp_path / "img.ids.txt").write_text("\n".join(map(str, range(ROWS, 0, -1))))
    assert registry.encoder("npy:img.npy", "image").options != before


def test_one_of_several_arrays_is_named(latents, tmp_path):
    np.savez(tmp_path / "both.npz", image=latents[0], text=latents[1])
    assert read_matrix(tmp_path / "both.npz", "text").shape == (ROWS, 9)
    assert registry.encoder("npy:both.npz#text").modality == "text"
    with pytest.raises(DataError, match="2 arrays: image, text") as error:
        read_matrix(tmp_path / "both.npz")
    assert "npy:" in error.value.hint and "#image" in error.value.hint


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), "shape \\(5,\\)"),
        (np.zeros((0, 3)), "shape \\(0, 3\\)"),
        (np.array([["a"]]), "array of <U1"),
        (np.array([[{}]], object), "can't be read"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(array, message, tmp_path):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        read_matrix(tmp_path / "x.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_a_shape_that_no_latents_have_is_refused_at_the_plan(suffix, latents, tmp_path):
    write(latents[0][:, 0].copy(), tmp_path / f"vec{suffix}")
    with pytest.raises(ConfigError, match=r"shape \(80,\)"):
        registry.encoder(f"npy:vec{suffix}", "image")
    np.savez(tmp_path / "both.npz", image=latents[0], text=latents[1][:, 0])
    assert registry.encoder("npy:both.npz#image")
    with pytest.raises(ConfigError, match=r"shape \(80,\)"):
        registry.encoder("npy:both.npz#text")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_latents_of_more_axes_are_grids_or_tokens(suffix, tmp_path):
    grids = np.random.default_rng(0).random((5, 3, 4, 2)).astype(np.float32)
    write(grids, tmp_path / f"map{suffix}")
    write(grids[:, 0].copy(), tmp_path / f"words{suffix}")
    found = encoder(f"npy:map{suffix}")
    assert found.spec.views == ("grid", "pooled")
    batch = found.collate(["4", "1"])
    assert torch.equal(found.encode(batch, "grid"), torch.from_numpy(grids[[4, 1]]))
    means = torch.from_numpy(grids[[4, 1]].mean(axis=(1, 2)))
    torch.testing.assert_close(found.encode(batch, "pooled"), means)
    assert registry.encoder(f"npy:words{suffix}").views == ("tokens", "pooled")
    assert MatrixEncoder.of(grids, "image").spec.views == ("grid", "pooled")


def test_latents_of_more_axes_pass_the_conformance_kit(tmp_path):
    write(np.random.default_rng(0).random((20, 2, 3, 4)).astype(np.float32), tmp_path / "map.npy")
    testing.check_encoder("npy:map.npy").raise_if_failed()


@pytest.mark.parametrize(
    ("ids", "message"), [(["a"] * ROWS, "'a' twice"), (["a"], "1 ids for 80 rows")]
)
def test_ids_that_do_not_fit_are_refused(ids, message, latents, tmp_path):
    write(latents[0], tmp_path / "img.npy")
    (tmp_path / "img.ids.txt").write_text("\n".join(ids))
    with pytest.raises(DataError, match=message):
        read_ids(tmp_path / "img.npy", ROWS)


@pytest.mark.parametrize(
    ("name", "message"), [("none.npy", "no file none.npy"), ("img.pt", "not a kind of file")]
)
def test_a_name_that_is_no_such_file_is_explained(name, message):
    with pytest.raises(ConfigError, match=message):
        registry.encoder(f"npy:{name}", "image")


def run(*arguments):
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    return done.exit_code, done.output


ALIGN = ["align", "-e", "image=npy:img.npy", "-e", "text=npy:txt.npy", "--out", "run"]


def test_two_files_are_aligned_row_by_row_without_data(latents, tmp_path):
    write(latents[0], tmp_path / "img.npy")
    write(latents[1], tmp_path / "txt.npy")
    code, output = run(*ALIGN, "--recipe", "cca")
    assert code == 0, output
    assert "whole numbers" not in output
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["test"]["retrieval"]["mean_r1"] == 100
    own = ["-e", "image=npy:img.npy", "-e", "text=npy:txt.npy"]
    command = output.partition("look at the report:")[2].split("fusemix ")[1].splitlines()[0]
    for arguments in (["eval", "run", *own], command.split()):
        code, output = run(*arguments)
        assert code == 0, output
    code, output = run("search", "run/model", "3", "--from", "image", "-k", "1", *own)
    assert code == 0 and " 3\n" in output, output


def test_what_a_run_and_its_card_print_runs_as_typed(latents, tmp_path):
    write(latents[0], tmp_path / "img.npy")
    write(latents[1], tmp_path / "txt.npy")
    code, output = run(*ALIGN, "--recipe", "cca")
    assert code == 0, output
    exec(compile(output.partition("Load it from Python:")[2].strip(), "usage", "exec"), {})  # noqa: S102
    code, output = run("eval", "run")
    assert code == 2 and "-e image=npy:img.npy -e text=npy:txt.npy" in output, output
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    rows = [f"{i},{i}" for i in range(ROWS)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,text", *rows]))
    code = card.partition("```python\n")[2].partition("```")[0]
    names = {}
    exec(compile(code, "card", "exec"), names)  # noqa: S102
    assert names["scores"].shape == (1, 1)
    commands = card.partition("```sh\n")[2].partition("```")[0].splitlines()
    for command in commands[:2]:
        code, output = run(*shlex.split(command)[1:])
        assert code == 0, output


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_row_that_is_not_finite_is_a_bad_item(value, latents, tmp_path):
    wide = latents[0].astype(np.float64)
    wide[7, 3] = value
    write(wide, tmp_path / "img.npy")
    write(latents[1], tmp_path / "txt.npy")
    code, output = run(*ALIGN, "--recipe", "cca", "--max-bad", "0.02")
    assert code == 0, output
    (line,) = (tmp_path / "run" / "rejected.jsonl").read_text().splitlines()
    assert "npy:img.npy has NaN or infinity in the latents of '7'" in line
    model = FusedModel.from_pretrained("run", encoders={"image": "npy:img.npy"})
    with pytest.raises(DataError, match="latents of '7'"):
        model.encode("image", ["7"])


def test_select_and_extend_take_rows_without_data(latents, tmp_path):
    for name, matrix in zip(("img", "txt", "aud"), (*latents, latents[0][:, :5]), strict=True):
        write(matrix, tmp_path / f"{name}.npy")
    code, output = run("select", *ALIGN[1:5], "--pairs", "9", "--out", "few.csv")
    assert code == 0 and len((tmp_path / "few.csv").read_text().splitlines()) == 10, output
    assert run(*ALIGN, "--recipe", "cca")[0] == 0
    more = ["extend", "run", "-e", "audio=npy:aud.npy", "--recipe", "cca", "--out", "more"]
    code, output = run(*more)
    assert code == 2 and "-e image=npy:img.npy -e audio=npy:aud.npy" in output, output
    code, output = run(*more, "-e", "image=npy:img.npy")
    assert code == 0 and "audio" in output, output


def test_two_arrays_of_one_file_are_aligned_without_data(latents, tmp_path):
    np.savez(tmp_path / "both.npz", image=latents[0], text=latents[1])
    encoders = ["-e", "image=npy:both.npz#image", "-e", "text=npy:both.npz#text"]
    code, output = run("align", *encoders, "--out", "run", "--recipe", "cca")
    assert code == 0, output
    assert MatrixReader().matches(tmp_path / "both.npz")
    np.savez(tmp_path / "unlike.npz", image=latents[0], text=latents[1][:9])
    with pytest.raises(DataError, match="different lengths"):
        read_ids(tmp_path / "unlike.npz")


def test_files_of_unequal_length_need_pairs(latents, tmp_path):
    write(latents[0], tmp_path / "img.npy")
    write(latents[1][:70], tmp_path / "txt.npy")
    code, output = run(*ALIGN, "--recipe", "cca")
    assert code == 2 and "img.npy has 80 rows, txt.npy has 70 rows" in output, output
    assert "--data pairs.csv" in output
    lines = [f"{i},{i}" for i in range(70)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,text", *lines]))
    code, output = run(*ALIGN, "--recipe", "cca", "--data", "pairs.csv")
    assert code == 0, output


def test_rank_and_bench_take_them_too(latents, tmp_path):
    write(latents[0], tmp_path / "img.npy")
    write(latents[1], tmp_path / "txt.npy")
    sides = ["--a", "npy:img.npy", "--b", "npy:txt.npy"]
    code, output = run("rank", *sides, "--shuffles", "2")
    assert code == 0 and "npy:txt.npy" in output, output
    named = ["-e", "image=npy:img.npy", "-e", "text=npy:txt.npy"]
    assert run("rank", *named, "--dry-run")[0] == 0
    code, output = run("bench", *named, "--methods", "cca", "--seeds", "1", "--out", "bench")
    assert code == 0 and "100.0" in output and "from 'id', text from 'id'" in output, output
    assert run("rank", *named, *sides)[0] == run("bench", *named[:2])[0] == 2


def test_arrays_are_aligned_in_python(latents):
    images, texts = latents
    done = fusemix_core.align(
        {"image": images, "text": torch.from_numpy(texts)}, recipe="cca", out="run"
    )
    assert done.results["test"]["retrieval"]["mean_r1"] == 100
    with pytest.raises(DataError, match="differ in length"):
        fusemix_core.align({"image": images, "text": texts[:9]}, recipe="cca", out="other")


def test_arrays_are_benchmarked_in_python(latents):
    tables = {"mine": {"encoders": dict(zip(("image", "text"), latents, strict=True))}}
    (line,) = bench({"sets": tables, "methods": ["cca"], "seeds": 1}, "bench")
    assert line["test"]["cosine"]["r1"] == 100


def test_equal_arrays_are_one_encoder(latents):
    one, same, other = (
        MatrixEncoder.of(x, "image") for x in (latents[0], latents[0].copy(), latents[1])
    )
    assert one.spec.name == same.spec.name != other.spec.name
