"""Masks of image files as facts."""

import numpy as np
import pytest
from PIL import Image

from fusemix_core.data.grids import GridHeld
from fusemix_core.data.masks import SIDE, MaskPlace, mask_cell, read_mask
from fusemix_core.data.references import Fault, FileReference


def saved(path, values, mode=None):
    Image.fromarray(values, mode).save(path)
    return MaskPlace(str(path))


def test_the_middle_square_is_reduced_to_the_nearest_pixels(tmp_path):
    values = np.zeros((SIDE, 3 * SIDE), np.uint8)
    values[:, SIDE : 2 * SIDE] = np.arange(SIDE)
    found = read_mask(saved(tmp_path / "m.png", values))
    assert (found == np.arange(SIDE)).all() and found.dtype == np.float32
    large = read_mask(GridHeld(np.repeat(np.repeat(values, 3, 0), 3, 1)))
    assert (large == found).all()


def test_grey_in_three_channels_is_a_mask_and_colours_are_not(tmp_path):
    grey = np.zeros((4, 4, 3), np.uint8)
    grey[:2] = 255
    assert set(np.unique(read_mask(saved(tmp_path / "g.png", grey)))) == {0, 255}
    grey[0, 0, 1] = 3
    assert "has colours" in read_mask(saved(tmp_path / "c.png", grey)).reason


def test_a_palette_and_16_bits_keep_their_numbers(tmp_path):
    indexed = Image.fromarray(np.array([[0, 1], [2, 2]], np.uint8), "P")
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    indexed.save(tmp_path / "p.png")
    assert set(np.unique(read_mask(MaskPlace(str(tmp_path / "p.png"))))) == {0, 1, 2}
    wide = saved(tmp_path / "w.png", np.array([[0, 4000]], np.uint16).repeat(2, 0))
    assert read_mask(wide).max() == 4000


@pytest.mark.parametrize("cell", [3, b"x"])
def test_another_cell_is_a_fault(cell):
    assert "not a mask" in mask_cell(cell, lambda name: FileReference(name)).reason


def test_a_file_that_is_not_an_image_is_a_fault(tmp_path):
    (tmp_path / "m.png").write_text("no image")
    assert isinstance(read_mask(MaskPlace(str(tmp_path / "m.png"))), Fault)
    assert mask_cell(" a.png ", lambda name: FileReference(name)) == MaskPlace("a.png")
