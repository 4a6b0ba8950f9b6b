"""A linear probe of every place, and the whole way from masks in files to a measured map."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fusemix_core import fuse
from fusemix_core.errors import ConfigError
from fusemix_core.fusers.dense import DenseFuser
from fusemix_core.padded import as_tokens

ROWS, SIDE, WIDTH = 90, 4, 6


def test_a_map_is_enlarged_into_the_part_that_the_encoder_sees():
    fuser = DenseFuser({"image": 1}, 2 * 8 * 8, size=8, grids={"image": [2, 2]}, crop=0.5)
    fuser.standards[0].scale.fill_(1.0)
    fuser.standards[0].longest.fill_(1e9)
    fuser.maps[0].weight.data = torch.tensor([[1.0], [0.0]])
    fuser.maps[0].bias.data.zero_()
    grid = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, ..., None]
    found = fuser.raw({"image": as_tokens(grid)}, torch.ones(1, 1, dtype=torch.bool))
    first, second = found.unflatten(1, (2, 8, 8))[0]
    corners = first[[0, 0, 7, 7], [0, 7, 0, 7]]
    assert corners.tolist() == [1.0, 2.0, 3.0, 4.0] and not second.any()
    assert first[2, 2] == 1.0 and first[5, 5] == 4.0 and 1.0 < first[3, 3] < 2.5


def test_a_crop_out_of_range_is_refused():
    with pytest.raises(ConfigError, match=r"crop=1\.5"):
        DenseFuser({"image": 3}, 8, size=2, crop=1.5)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """(a table with the files of masks, latents of grids that say what is at each place)."""
    folder, draw = tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    cells = (draw.random((ROWS, SIDE, SIDE)) < 0.3).astype(np.uint8)
    way = draw.normal(size=(2, WIDTH))
    latents = way[cells] + 0.3 * draw.normal(size=(ROWS, SIDE, SIDE, WIDTH))
    names = [f"{k}.png" for k in range(ROWS)]
    for name, cell in zip(names, cells, strict=True):
        Image.fromarray(np.kron(cell, np.full((14, 14), 255, np.uint8))).save(folder / name)
    pd.DataFrame({"image": range(ROWS), "mask": names}).to_csv(folder / "rows.csv", index=False)
    np.save(folder / "latents.npy", latents.astype(np.float32))
    return folder


@pytest.mark.slow
def test_masks_in_files_are_predicted_place_by_place(masked, tmp_path):
    done = fuse(
        {"image": f"npy:{masked / 'latents.npy'}"},
        masked / "rows.csv",
        target="mask",
        task={"name": "segment", "options": {"classes": "none,opacity"}},
        views={"image": "grid"},
        out=tmp_path / "run",
    )
    found = done.results["candidates"]
    assert done.results["fuser"] == "dense"
    assert set(found) == {
        "no modality",
        "image",
        "stack",
        "dense",
    }
    assert found["dense"]["metrics"]["miou"] > 0.7 > found["no modality"]["metrics"]["miou"]
    low, high = found["dense"]["interval"]
    assert low < found["dense"]["metrics"]["miou"] < high
    maps = done.predictor.predict_proba({"image": ["0", "1"]})
    assert maps.shape == (2, 2, 56, 56)
    assert done.predictor.predict({"image": ["0"]}) == ["opacity"]
