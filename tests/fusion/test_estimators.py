"""`FusionClassifier` and `FusionRegressor`, and the tools of scikit-learn around them."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from fusemix_core import FusionClassifier, FusionRegressor, side_by_side

GAPS = "a missing modality is a row of NaN; this check has NaN in single cells, which are refused"
EXPECTED = {"check_estimators_pickle": GAPS}


@parametrize_with_checks(
    [FusionClassifier(), FusionRegressor()], expected_failed_checks=lambda _: EXPECTED
)
def test_scikit_learn_says_it_is_an_estimator(estimator, check):
    check(estimator)


def latents(count=150, seed=0, gaps=0.0):
    """(modality → latents, each of which tells one half of the class; the class; a number)."""
    draw = np.random.default_rng(seed)
    first, second = draw.integers(0, 2, count), draw.integers(0, 2, count)
    X = {"image": draw.normal(size=(count, 6)), "text": draw.normal(size=(count, 4))}
    X["image"][:, 0] += 4 * first
    X["text"][:, 1] += 4 * second
    for one, other in (("image", "text"), ("text", "image")):
        gone = (draw.random(count) < gaps) & ~np.isnan(X[other]).any(axis=1)
        X[one][gone] = np.nan
    return X, np.array(["a", "b", "c", "d"])[2 * first + second], 2.0 * first + second


def test_modalities_come_as_a_dict_or_side_by_side():
    X, y, _ = latents()
    model = FusionClassifier().fit(X, y)
    assert model.n_features_in_ == 10 and list(model.classes_) == ["a", "b", "c", "d"]
    assert model.score(X, y) > 0.9
    whole, blocks = side_by_side(X)
    for form in (blocks, {"image": 6, "text": 4}):
        same = FusionClassifier(blocks=form).fit(whole, y)
        assert (same.predict_proba(whole) == model.predict_proba(X)).all()
    alone = FusionClassifier().fit(X["image"], y)
    assert alone.score(X["image"], y) < 0.7


def test_rows_may_lack_modalities_in_training_and_after():
    X, y, number = latents(200, gaps=0.3)
    model = FusionClassifier().fit(X, y)
    without = model.predict_proba({"image": X["image"]})
    both = model.predict_proba(X)
    lacks = np.isnan(X["text"][:, 0])
    assert lacks.any() and (without[lacks] == both[lacks]).all()
    nothing = model.predict_proba({"image": np.full((1, 6), np.nan)})[0]
    assert nothing == pytest.approx(np.unique(y, return_counts=True)[1] / 200, abs=0.02)
    regressor = FusionRegressor().fit(X, number)
    full = ~lacks & ~np.isnan(X["image"][:, 0])
    assert np.corrcoef(regressor.predict(X)[full], number[full])[0, 1] > 0.8


def test_the_tools_of_scikit_learn_take_its_rows():
    X, y, number = latents(90, gaps=0.1)
    whole, blocks = side_by_side(X)
    groups = np.arange(90) // 2
    scores = cross_val_score(
        FusionClassifier(blocks=blocks), whole, y, cv=GroupKFold(3), groups=groups
    )
    assert scores.mean() > 0.6
    grid = {"fuser": ["stack", "block"], "options": [None, {"rank": 2}]}
    search = GridSearchCV(FusionRegressor("stack", blocks=blocks), grid, cv=2).fit(whole, number)
    assert search.best_score_ > 0.5
    text = np.nan_to_num(X["text"])
    piped = make_pipeline(PCA(3), FusionClassifier()).fit(text, y)
    assert piped.score(text, y) > 0.4


def test_a_fit_repeats_and_is_kept_by_clone_and_pickle():
    X, y, _ = latents(80)
    training = {"training": {"epochs": 2}}
    model = FusionClassifier("mlp", options=training, random_state=3).fit(X, y)
    again = clone(model)
    assert again.get_params() == model.get_params() and not hasattr(again, "fuser_")
    want = model.predict_proba(X)
    assert (again.fit(X, y).predict_proba(X) == want).all()
    assert (pickle.loads(pickle.dumps(model)).predict_proba(X) == want).all()  # noqa: S301
    other = clone(model).set_params(random_state=4).fit(X, y)
    assert (other.predict_proba(X) != want).any()


def test_rows_of_a_group_are_left_out_together():
    """Copies of a row tell nothing about it if they are left out with it."""
    draw = np.random.default_rng(0)
    few, y = draw.normal(size=(20, 30)), draw.integers(0, 2, 20)
    X, many, groups = np.tile(few, (4, 1)), np.tile(y, 4), np.tile(np.arange(20), 4)
    sure = FusionClassifier().fit(X, many).predict_proba(X).max(axis=1).mean()
    grouped = FusionClassifier().fit(X, many, groups=groups).predict_proba(X).max(axis=1).mean()
    assert grouped < sure - 0.1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"y": np.zeros(60)}, "one class"),
        ({"text": np.zeros((59, 4))}, "a row for each y"),
        ({"text": np.where(np.arange(4) == 1, np.nan, np.ones((60, 4)))}, "NaN in some columns"),
        ({"image": np.full((60, 6), np.nan), "text": np.full((60, 4), np.nan)}, "any modality"),
        ({"groups": np.zeros(3)}, "groups has 3 entries"),
    ],
)
def test_what_can_be_mended_is_said(change, says):
    X, y, _ = latents(60)
    own = {m: change.get(m, one) for m, one in X.items()}
    with pytest.raises(ValueError, match=says):
        FusionClassifier().fit(own, change.get("y", y), groups=change.get("groups"))


def test_parameters_that_do_not_fit_together_are_refused():
    X, y, _ = latents(60)
    whole, _ = side_by_side(X)
    with pytest.raises(ValueError, match="has no options"):
        FusionClassifier(options={"rank": 2}).fit(X, y)
    with pytest.raises(ValueError, match="X has 10 columns"):
        FusionClassifier(blocks={"image": 6, "text": 5}).fit(whole, y)
    model = FusionClassifier().fit(X, y)
    with pytest.raises(ValueError, match="'sound' is not among the modalities"):
        model.predict({"sound": whole})
