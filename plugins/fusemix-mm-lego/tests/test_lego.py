"""The fuser `lego`: which rows a block is trained on, what a merge reads, what fusing changes."""

import pytest
import torch
from fusemix_mm_lego.blocks import Block, real_spectrum
from fusemix_mm_lego.fuser import LegoFuser
from fusemix_mm_lego.merging import merged, published_slerp, slerp

from fusemix_core.errors import ArtefactError, ConfigError, DataError
from fusemix_core.fusers.learning import scores_of
from fusemix_core.interfaces import Callback, FitContext, as_tokens
from fusemix_core.testing import check_fuser
from fusemix_core.testing.fusers import labelled_rows

SMALL = {
    "channels": 4,
    "latent_width": 8,
    "heads": 2,
    "head_width": 4,
    "training": {"epochs": 6, "lr": 1e-2, "warmup_steps": 2},
    "fuse_epochs": 2,
}


def fitted(rows, context=FitContext(), **options):
    options = {**SMALL, **options}
    return LegoFuser.fit(rows.train, rows.validation, rows.task, context, **options).fuser


def loss(fuser, rows):
    scores = scores_of(fuser, rows.new.as_taken_by(fuser))
    return float(rows.task.loss(scores, rows.new.targets))


@pytest.mark.slow
def test_conforms_to_the_kit_when_fused():
    options = {**SMALL, "mode": "fuse", "fuse": "weave", "frequency": False, "depth": 1}
    check_fuser(LegoFuser, options=options).raise_if_failed()


def unpaired(rows):
    """The same, each training row with one modality only."""
    links = rows.train.pairs.links
    kept = torch.full_like(links, -1)
    own = torch.arange(len(links)) % links.shape[1]
    kept[torch.arange(len(links)), own] = links[torch.arange(len(links)), own]
    return rows.train.with_links(kept)


def test_blocks_of_rows_that_share_no_modality_are_merged():
    rows = labelled_rows(missing=0.0)
    train = unpaired(rows)
    assert (train.present.sum(dim=1) == 1).all()
    options = {**SMALL, "training": {"epochs": 30, "lr": 1e-2}}
    fuser = LegoFuser.fit(train, rows.validation, rows.task, FitContext(), **options).fuser
    constant = rows.task.baseline(train.targets).expand(len(rows.new), -1)
    assert loss(fuser, rows) < 0.9 * float(rows.task.loss(constant, rows.new.targets))


def test_a_block_is_trained_on_the_rows_that_have_it_whatever_else_they_have():
    rows = labelled_rows(missing=0.3)
    links = rows.train.pairs.links.clone()
    links[:, 1] = -1
    links[0, 1] = rows.train.pairs.links[rows.train.present[:, 1], 1][0]
    image = {}
    for name, train in (("all", rows.train), ("less text", rows.train.with_links(links))):
        only = train.only(["image", "table"])
        fuser = LegoFuser.fit(only, rows.validation.only(["image", "table"]), rows.task,
                              FitContext(), **SMALL).fuser  # fmt: skip
        image[name] = fuser.blocks[0].state_dict()
    assert all(torch.equal(v, image["less text"][k]) for k, v in image["all"].items())


def test_a_modality_without_rows_is_an_error():
    rows = labelled_rows(missing=0.0)
    links = rows.train.pairs.links.clone()
    links[3:, 1] = -1
    with pytest.raises(DataError, match="row"):
        LegoFuser.fit(rows.train.with_links(links), rows.validation, rows.task, FitContext(),
                      **SMALL)  # fmt: skip


def test_weights_may_be_float64():
    torch.manual_seed(0)
    fuser = LegoFuser({"image": 6, "text": 5}, 3, **SMALL).eval()
    latents = {m: as_tokens(torch.randn(4, d)) for m, d in fuser.inputs.items()}
    present = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    for standard in fuser.standards:
        standard.learn(torch.randn(20, len(standard.mean)))
    scores = fuser(latents, present)
    found = fuser.double()({m: x.to(torch.float64) for m, x in latents.items()}, present)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), scores)


def test_a_row_with_one_modality_is_predicted_by_its_block():
    rows = labelled_rows(missing=0.0)
    fuser = fitted(rows)
    latents = {m: rows.new.as_taken_by(fuser).latents(m) for m in rows.new.modalities}
    present = torch.tensor([[False, True, False]]).expand(len(rows.new), 3)
    inputs, masks = fuser._tokens(latents, present)
    alone = fuser.blocks[1].head(fuser.blocks[1](inputs[1], masks[1]))
    torch.testing.assert_close(fuser.raw(latents, present), alone)


def test_blocks_begin_alike_where_their_shapes_allow():
    fuser = LegoFuser({"image": 200, "text": 70, "table": 3}, 2)
    image, text, table = (dict(block.named_parameters()) for block in fuser.blocks)
    assert all(torch.equal(image[name], text[name]) for name in image)
    own = [name for name in image if image[name].shape != table[name].shape]
    assert own and all(".mod_" in n or ".kv." in n or "norm_context" in n for n in own)
    assert torch.equal(image["latent"], table["latent"])


def test_fusing_starts_from_the_blocks_and_may_keep_them():
    rows = labelled_rows()
    merged_fuser, fused = fitted(rows), fitted(rows, mode="fuse")
    before, after = merged_fuser.blocks[0].state_dict(), fused.blocks[0].state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    reports = []

    class Ear(Callback):
        def on_stage(self, text):
            reports.append(text)

        def on_evaluation(self, step, metrics):
            reports.append(step)

    fitted(rows, FitContext(callbacks=[Ear()]), mode="fuse")
    stages = [report for report in reports if isinstance(report, str)]
    assert stages == [
        "training the block of image",
        "training the block of text",
        "training the block of table",
        "training all blocks together",
    ]
    assert reports[reports.index(stages[-1]) + 1] == 0  # scored before the first step


def test_a_fit_goes_on_from_the_stage_it_was_interrupted_in(tmp_path):
    rows = labelled_rows()
    stages = []

    class Stop(Callback):
        def on_stage(self, text):
            stages.append(text)

        def on_step(self, step, metrics):
            if len(stages) == 2 and step == 3:
                raise KeyboardInterrupt

    whole = fitted(rows, mode="fuse").state_dict()
    with pytest.raises(KeyboardInterrupt):
        fitted(rows, FitContext(checkpoints=tmp_path, callbacks=[Stop()]), mode="fuse")
    resume = FitContext(checkpoints=tmp_path, resume=True)
    with pytest.raises(ArtefactError):
        fitted(rows, resume, mode="fuse", depth=1)
    resumed = fitted(rows, resume, mode="fuse").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_padding_has_no_part_in_the_spectrum_nor_in_the_latent():
    x, mask = torch.randn(3, 6, 5), torch.arange(6) < torch.tensor([[4], [6], [1]])
    padded = x.masked_fill(~mask[..., None], 0)
    found = real_spectrum(padded, mask)
    block = Block(5, 2, channels=4, latent_width=8, depth=2, heads=2, head_width=4)
    latent = block(padded, mask)
    for row, length in enumerate((4, 6, 1)):
        own = x[row : row + 1, :length]
        torch.testing.assert_close(found[row, :length], real_spectrum(own)[0])
        torch.testing.assert_close(latent[row], block(own)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["mean", "product", "harmonic"])
def test_a_merge_of_one_latent_is_that_latent(how):
    latents = torch.randn(3, 4, 2, 5, dtype=torch.complex64)
    present = torch.eye(3, dtype=torch.bool)[[0, 1, 2, 1]]
    found = merged(latents, present, how)
    for row, k in enumerate((0, 1, 2, 1)):
        torch.testing.assert_close(found[row], latents[k, row])


def test_a_sum_is_scaled_to_all_modalities():
    latents, present = torch.randn(3, 2, 2, 5), torch.tensor([[True, True, False]] * 2)
    found = merged(latents, present, "sum")
    torch.testing.assert_close(found, 1.5 * (latents[0] + latents[1]))


def test_slerp_goes_along_the_arc_and_takes_equal_and_zero_tensors():
    first, second = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
    middle = slerp(first, second, 0.5)
    torch.testing.assert_close(middle, torch.tensor([3.0, 3.0]) / 2**0.5)
    torch.testing.assert_close(slerp(first, second, 0.0), first)
    torch.testing.assert_close(slerp(first, second, 1.0), second)
    for how in (slerp, published_slerp):
        torch.testing.assert_close(how(first, first, 0.3), first)
        assert how(torch.zeros(2), second, 0.3).isfinite().all()


def test_unknown_options_are_explained():
    with pytest.raises(ConfigError, match="no merge 'median'"):
        LegoFuser({"image": 4}, 2, merge="median")
