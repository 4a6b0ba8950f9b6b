"""Fusers that the engine trains: what they promise of gaps, seeds, checkpoints and calibration."""

from dataclasses import replace

import pytest
import torch
from fusers.rows import WIDTHS, labelled

from fusemix_core.context import Callback, FitContext
from fusemix_core.errors import ArtefactError, ConfigError, DataError, RunExistsError
from fusemix_core.fuser import Labelled
from fusemix_core.fusers.attention import AttentionFuser
from fusemix_core.fusers.learning import FuserFit, scores_of, with_places
from fusemix_core.fusers.mlp import MlpFuser
from fusemix_core.interfaces import Padded
from fusemix_core.mixups.targets import SHARE, TargetMix
from fusemix_core.paired import PairedLatents, ResidentTokens

TRAINED = [MlpFuser, AttentionFuser]
SMALL = {"width": 32, "training": {"epochs": 8, "lr": 1e-2, "warmup_steps": 2}}


def fitted(kind, rows, validation, task, context=FitContext(), **options):
    return kind.fit(rows, validation, task, context, **{**SMALL, **options}).fuser


def scores(fuser, rows):
    return scores_of(fuser, rows.as_taken_by(fuser))


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize(("task", "baseline"), [("classify", 0.45), ("regress", 0.0)])
def test_new_rows_are_predicted_although_modalities_are_missing(kind, task, baseline):
    rows, made = labelled(300, task, missing=0.2)
    validation, _ = labelled(80, task, missing=0.2, seed=2)
    new, _ = labelled(200, task, missing=0.2, seed=1)
    training = {**SMALL["training"], "epochs": 20}
    fuser = fitted(kind, rows, validation, made, training=training)
    assert made.score(scores(fuser, new), new.targets) > baseline + 0.2
    assert not any(module.training for module in fuser.modules())


def test_the_kept_weights_and_the_calibration_are_best_on_the_validation_rows():
    rows, task = labelled(120)
    validation, _ = labelled(1000, seed=2)  # so that the prior on the scale weighs nothing
    heard = []

    class Ear(Callback):
        def on_evaluation(self, step, metrics):
            heard.append(metrics["validation_loss"])

    fuser = fitted(MlpFuser, rows, validation, task, FitContext(callbacks=[Ear()]))
    found = scores(fuser, validation)
    loss = float(task.loss(found, validation.targets))
    assert len(heard) == 4 and loss == pytest.approx(min(heard), rel=1e-4)
    for scale in (0.9, 1.1):
        assert task.loss(scale * found, validation.targets) > loss


def test_training_ends_when_the_validation_loss_no_longer_falls():
    rows, task = labelled(60)
    validation, _ = labelled(60, seed=2)
    shuffled = replace(validation, targets=validation.targets[torch.randperm(60)])
    steps = []

    class Ear(Callback):
        def on_evaluation(self, step, metrics):
            steps.append(step)

    training = {**SMALL["training"], "epochs": 100, "patience": 3}
    fitted(MlpFuser, rows, shuffled, task, FitContext(callbacks=[Ear()]), training=training)
    assert len(steps) < 60


@pytest.mark.parametrize("kind", TRAINED)
def test_the_seed_alone_decides(kind):
    rows, task = labelled(80, missing=0.3)
    torch.manual_seed(1)
    first = fitted(kind, rows, rows, task).state_dict()
    torch.manual_seed(2)
    again = fitted(kind, rows, rows, task).state_dict()
    other = fitted(kind, rows, rows, task, FitContext(seed=1)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_a_fit_that_was_interrupted_goes_on_to_the_same_result(tmp_path):
    rows, task = labelled(120, missing=0.2)

    class Stop(Callback):
        def on_step(self, step, metrics):
            if step == 7:
                raise KeyboardInterrupt

    whole = fitted(MlpFuser, rows, rows, task).state_dict()
    with pytest.raises(KeyboardInterrupt):
        fitted(MlpFuser, rows, rows, task, FitContext(checkpoints=tmp_path, callbacks=[Stop()]))
    with pytest.raises(RunExistsError):
        fitted(MlpFuser, rows, rows, task, FitContext(checkpoints=tmp_path))
    resume = FitContext(checkpoints=tmp_path, resume=True)
    with pytest.raises(ArtefactError, match="another recipe"):
        fitted(MlpFuser, rows, rows, task, resume, dropout=0.1)
    other = replace(rows, targets=rows.targets[torch.arange(120).flip(0)])
    with pytest.raises(ArtefactError, match="another recipe"):
        fitted(MlpFuser, other, rows, task, resume)
    resumed = fitted(MlpFuser, rows, rows, task, resume).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("kind", TRAINED)
def test_what_is_absent_changes_nothing(kind):
    rows, task = labelled(80, missing=0.4)
    fuser = fitted(kind, rows, rows, task)
    given = {m: rows.as_taken_by(fuser).latents(m) for m in rows.modalities}
    want = fuser(given, rows.present)
    for k, m in enumerate(WIDTHS):
        gone = ~rows.present[:, k]
        if isinstance(given[m], Padded):
            values = given[m].values.clone()
            values[gone] = torch.nan
            given[m] = Padded(values, given[m].mask | gone[:, None])
        else:
            given[m] = given[m].masked_fill(gone[:, None], torch.nan)
    assert torch.equal(fuser(given, rows.present), want) and want.isfinite().all()


def with_tokens(rows, seed=0):
    """The same rows, whose texts are one to four tokens each."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 5, (len(rows),), generator=draw)
    own = rows.pairs.tables["text"].latents.repeat_interleave(lengths, 0)
    tokens = own + 0.1 * torch.randn(own.shape, generator=draw)
    tables = {**rows.pairs.tables, "text": ResidentTokens(tokens, lengths)}
    return replace(rows, pairs=PairedLatents(tables, rows.pairs.links))


def test_attention_reads_tokens_and_no_padding():
    rows, task = labelled(150, missing=0.2)
    rows = with_tokens(rows)
    training = {**SMALL["training"], "epochs": 16}
    fuser = fitted(AttentionFuser, rows, rows, task, training=training)
    assert fuser.inputs == WIDTHS
    given = {m: rows.as_taken_by(fuser).latents(m) for m in rows.modalities}
    want = fuser(given, rows.present)
    longer = given["text"].padded_to(9)
    longer.values[~longer.mask] = torch.nan
    got = fuser({**given, "text": longer}, rows.present)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    assert task.score(want, rows.targets) > 0.7


def test_an_item_without_tokens_is_predicted():
    rows, task = labelled(40)
    fuser = fitted(AttentionFuser, rows, rows, task)
    given = {m: rows.as_taken_by(fuser).latents(m) for m in rows.modalities}
    empty = Padded(given["text"].values, torch.zeros_like(given["text"].mask))
    only = torch.tensor([[False, True, False]]).expand(40, 3)
    assert fuser({**given, "text": empty}, only).isfinite().all()


def test_a_mixed_row_knows_its_sources_and_their_shares():
    rows, _ = labelled(40, missing=0.4)
    pairs = with_places(rows.pairs)
    batch = pairs.batch(torch.arange(40))
    mixed = TargetMix(alpha=0.4, alpha_max=0.4)(batch, torch.Generator().manual_seed(0), 0.0)
    places, share = mixed.facts["place"], mixed.facts[SHARE]
    assert share.shape == places.shape and share.unique().numel() == 2
    torch.testing.assert_close(share.sum(dim=1), torch.ones(len(share)))
    present = mixed.present()
    assert present.any(dim=1).all()
    own = rows.present[places[:, 0]] & rows.present[places[:, 1]]
    assert torch.equal(present, own)
    images = rows.latents("image")
    want = sum(share[:, s, None] * images[places[:, s]] for s in range(2))
    torch.testing.assert_close(mixed.latents["image"][present[:, 0]], want[present[:, 0]])


def test_rows_without_a_common_modality_make_no_row():
    links = torch.tensor([[0, -1], [-1, 0]])
    first, second = TargetMix().sources(links >= 0)
    assert len(first) == len(second) == 0


def test_the_loss_of_a_mixed_row_is_the_mean_of_both_targets_losses_by_share():
    rows, task = labelled(20)
    fuser = MlpFuser(WIDTHS, 3, **SMALL).eval()
    fit = FuserFit(fuser, rows.targets, rows, task, 0.0)
    batch = with_places(rows.pairs).batch(torch.arange(20))
    mixed = TargetMix().mix(batch, 0.3)
    raw = fuser.raw(mixed.latents, mixed.present())
    first, second = (task.loss(raw, rows.targets[own]) for own in (slice(0, 10), slice(10, 20)))
    torch.testing.assert_close(fit.loss(fit.step(mixed)), 0.3 * first + 0.7 * second)


def test_modalities_are_left_out_in_training_only_if_some_row_lacks_one():
    seen = []

    class Watching(MlpFuser):
        def raw(self, latents, present):
            if self.training:
                seen.append(present.float().mean().item())
            return super().raw(latents, present)

    for missing in (0.0, 0.1):
        rows, task = labelled(80, missing=missing)
        seen.clear()
        fitted(Watching, rows, rows, task, mix=0.0)
        share = rows.present.float().mean().item()
        mean = sum(seen) / len(seen)
        assert mean == 1.0 if not missing else share * 0.85 < mean < share * 0.95
    fit = FuserFit(MlpFuser(WIDTHS, 3), rows.targets, rows, task, 0.9)
    assert fit._thinned(rows.present).any(dim=1).all()


def test_rows_without_a_target_and_a_validation_split_without_one_are_taken():
    rows, task = labelled(60)
    known = rows.targets.known.clone()
    known[::3] = False
    hidden = replace(rows, targets=replace(rows.targets, known=known))
    other = replace(
        hidden, targets=replace(hidden.targets, values=rows.targets.values.where(known, 2))
    )
    none = replace(rows, targets=replace(rows.targets, known=torch.zeros_like(known)))
    first, second = (fitted(MlpFuser, one, none, task) for one in (hidden, other))
    assert torch.equal(first.head.weight, second.head.weight)
    assert first.scale == 1 and first.offsets.abs().max() == 0


def test_wrong_options_and_too_few_rows_are_explained():
    rows, task = labelled(60)
    with pytest.raises(ConfigError, match="mix"):
        MlpFuser(WIDTHS, 3, mix=-1)
    with pytest.raises(ConfigError, match="drop"):
        MlpFuser(WIDTHS, 3, drop=1.0)
    with pytest.raises(ConfigError, match="epoch"):
        MlpFuser(WIDTHS, 3, training={"epoch": 3})
    with pytest.raises(ConfigError, match="heads divides width"):
        AttentionFuser(WIDTHS, 3, width=10, heads=4)
    with pytest.raises(DataError, match="3 row"):
        fitted(MlpFuser, rows.select(torch.arange(3)), rows, task)


def test_averaged_weights_are_trained_too():
    rows, task = labelled(60)
    fuser = fitted(MlpFuser, rows, rows, task, training={**SMALL["training"], "ema": 0.9})
    assert fuser.options["width"] == 32 and task.score(scores(fuser, rows), rows.targets) > 0.5


def test_latents_in_float64_and_constant_columns_are_taken():
    rows, task = labelled(60)
    for table in rows.pairs.tables.values():
        table.latents = table.latents.double()
        table.latents[:, 0] = 3.0
    fuser = fitted(MlpFuser, rows, rows, task)
    assert isinstance(rows, Labelled) and scores(fuser, rows).dtype == torch.float32
    assert scores(fuser, rows).isfinite().all()
