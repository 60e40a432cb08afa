"""The gate: its arithmetic, and for each reason to refuse a challenger that is refused for it."""

import time

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from << cookiecutter.package_name >>.continuous_training.decision import (
    bootstrap,
    challenger,
    gate,
)
from << cookiecutter.package_name >>.continuous_training.decision.bootstrap import (
    DayPredictions,
)
from << cookiecutter.package_name >>.continuous_training.settings import Gate
from << cookiecutter.package_name >>.experiment import tracking
from << cookiecutter.package_name >>.experiment.column_types import Kinds
from << cookiecutter.package_name >>.experiment.evaluate import metrics
from << cookiecutter.package_name >>.experiment.registry import find_version

ROWS, DAYS = 3000, 14
RANDOM = np.random.default_rng(0)
DAY = np.sort(RANDOM.integers(DAYS, size=ROWS))
TRUTH = RANDOM.normal(size=ROWS)
SEGMENTS = pd.DataFrame({"place": RANDOM.choice(["a", "b"], size=ROWS)})
LIMITS = Gate()


def classifier(noise: float, classes: int = 2, seed: int = 1) -> DayPredictions:
    """Predictions that know the truth but for some noise."""
    random = np.random.default_rng(seed)
    edges = np.quantile(TRUTH, np.linspace(0, 1, classes + 1)[1:-1])
    y = np.searchsorted(edges, TRUTH)
    guess = TRUTH + random.normal(scale=noise, size=ROWS)
    score = -np.abs(guess[:, None] - np.linspace(-1, 1, classes)[None, :])
    odds = np.exp(score - score.max(axis=1, keepdims=True))
    return DayPredictions(y, odds / odds.sum(axis=1, keepdims=True), np.arange(classes), DAY)


def regressor(noise: float, seed: int = 1) -> DayPredictions:
    random = np.random.default_rng(seed)
    return DayPredictions(TRUTH, TRUTH + random.normal(scale=noise, size=ROWS), None, DAY)


CLASSES = ["roc_auc", "average_precision", "accuracy", "brier", "log_loss"]
CASES = [(name, classifier(1, k)) for name in CLASSES for k in (2, 3)]
CASES += [(name, regressor(1)) for name in ("mae", "rmse", "r2", "bias")]


@pytest.mark.parametrize(("name", "judged"), CASES)
def test_a_metric_by_day_is_that_of_the_rows(name, judged):
    """Counting a day twice is having its rows twice; all days once is the metric of evaluate.py."""
    twice = np.concatenate([np.arange(ROWS), np.flatnonzero(DAY == 3)])
    weights = np.ones((2, DAYS))
    weights[1, 3] = 2
    found = bootstrap.metric_by_day(name, judged)(weights)
    for value, rows in zip(found, (np.arange(ROWS), twice), strict=True):
        expected = metrics(judged.y[rows], judged.predicted[rows], judged.classes)[name]
        assert value == pytest.approx(expected, rel=1e-9)


def test_the_interval_holds_the_difference_and_widens_with_days_that_differ(params):
    value, (low, high), own = bootstrap.gain("brier", classifier(1), classifier(1.2, seed=2))
    assert low < value < high
    assert own == pytest.approx(metrics(*_parts(classifier(1.2, seed=2)))["brier"])
    uneven = classifier(1)
    uneven.predicted[DAY < 3] = uneven.predicted[DAY < 3][:, ::-1]
    _, (wide_low, wide_high), _ = bootstrap.gain("brier", uneven, classifier(1.2, seed=2))
    assert wide_high - wide_low > 2 * (high - low)
    _, (inner_low, inner_high), _ = bootstrap.gain(
        "brier", classifier(1), classifier(1.2, 2, 2), 0.05
    )
    assert low < inner_low < inner_high < high


@pytest.mark.parametrize("days", [2, 3, 5, 9])
def test_an_interval_of_95_percent_holds_the_truth_about_so_often(days):
    """Whole days are better or worse than others, and few of them are known."""
    random, held = np.random.default_rng(0), 0
    for _ in range(300):
        day = np.repeat(np.arange(days), 20)
        error = np.abs(5 + random.normal(size=days)[day] + random.normal(size=len(day)))
        _, (low, high) = bootstrap.measure(
            "mae", DayPredictions(np.zeros(len(day)), error, None, day)
        )
        held += low <= 5 <= high
    assert 0.92 <= held / 300 <= 0.99


def test_one_day_has_no_interval(params):
    """Not one of no width, with which a segment seen on one day would be surely worse."""
    one = np.flatnonzero(DAY == 3)
    _, interval, _ = bootstrap.gain("brier", classifier(2).of(one), classifier(1).of(one))
    assert np.isnan(interval).all()


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_that_only_the_challenger_knows_is_judged_on_the_same_rows(name):
    """To have learnt it is no loss: the champion gives it probability 0."""
    challenger, champion = classifier(1, 3), classifier(1, 3)
    known = champion.predicted[:, :2] / champion.predicted[:, :2].sum(axis=1, keepdims=True)
    champion = DayPredictions(champion.y, known, np.arange(2), DAY)
    value, (low, _), _ = bootstrap.gain(name, challenger, champion)
    assert 0 < low < value


def _parts(judged: DayPredictions):
    return judged.y, judged.predicted, judged.classes


def settings(params, task: str):
    metric = "roc_auc" if task == "classification" else "mae"
    evaluate = params.evaluate.model_copy(update={"metric": metric, "segments": ["place"]})
    return params.model_copy(update={"task": task, "evaluate": evaluate})


def refused(challenger: DayPredictions, champion: DayPredictions, params, **limits) -> set[str]:
    task = "regression" if challenger.classes is None else "classification"
    limits = LIMITS.model_copy(update=limits)
    checks = gate.against_champion(challenger, champion, SEGMENTS, settings(params, task), limits)
    return {check.name for check in checks if not check.passed}


@pytest.mark.parametrize("make", [classifier, regressor])
def test_metric(make, params):
    assert "metric" in refused(make(1.5), make(1, seed=2), params)
    assert not refused(make(1), make(1), params)
    assert not refused(make(1), make(1.5, seed=2), params)


def test_rows_that_tell_nothing_promote_nothing(params):
    """ROC AUC of one class is undefined."""
    alike = classifier(1)
    alike.y = np.zeros(ROWS, int)
    assert "metric" in refused(alike, alike, params)


@pytest.mark.parametrize("make", [classifier, regressor])
def test_with_too_little_held_out_only_what_is_surely_better_passes(make, params):
    """Else chance decides: some hundred rows of some days, with some of each class, are asked for."""
    timed = params.model_copy(update={"data": params.data.model_copy(update={"time": "time"})})
    timeless = params.model_copy(update={"data": params.data.model_copy(update={"time": None})})
    few = make(1).of(np.arange(150))
    assert gate.too_little(make(1), timed, LIMITS) is None
    assert gate.too_little(few, timed, LIMITS) == "150 of 200 rows, 1 of 5 days"
    assert gate.too_little(few, timeless, LIMITS) == "150 of 200 rows"
    assert not refused(make(1), make(1), params)
    more = LIMITS.at_least.model_copy(update={"rows": ROWS + 1})
    assert "metric" in refused(make(1), make(1), params, at_least=more)
    assert not refused(make(0.7), make(1.5, seed=2), params, at_least=more)


def test_few_rows_of_the_rarer_classes(params):
    judged = classifier(1)
    judged.y = (np.arange(ROWS) < 9).astype(int)
    assert gate.too_little(judged, params, LIMITS) == "9 of 20 minority"


@pytest.mark.parametrize("make", [classifier, regressor])
def test_strict(make, params):
    """As good is not enough."""
    assert refused(make(1), make(1), params, strict=True) == {"metric"}
    assert not refused(make(0.7), make(1.5, seed=2), params, strict=True)


def test_calibration(params):
    """A wrong threshold for the label, or a shift, leaves the order of the rows as it was."""
    sure = classifier(1)
    sure.predicted = sure.predicted**8 / (sure.predicted**8).sum(axis=1, keepdims=True)
    assert refused(sure, classifier(1), params) == {"calibration"}
    shifted = regressor(1)
    shifted.predicted = shifted.predicted + 0.2
    assert "calibration" in refused(shifted, regressor(1), params)


@pytest.mark.parametrize("make", [classifier, regressor])
def test_segment(make, params):
    """Worse in one place and better in the other, so that the whole looks as good as before."""
    champion, there = make(1, seed=2), (SEGMENTS["place"] == "a").to_numpy()
    challenger, bad = make(0.3), make(2.5, seed=3)
    challenger.predicted[there] = bad.predicted[there]
    assert "segment" in refused(challenger, champion, params)
    assert "segment" not in refused(challenger, champion, params, segment_rows=ROWS)


@pytest.fixture
def suspect(params, monkeypatch):
    """The check of a champion that was better than the baseline, or not, when it was judged."""

    def check(champion: DayPredictions, before: bool = True, **limits) -> gate.Check:
        task = "regression" if champion.classes is None else "classification"
        value = np.median(TRUTH) if champion.classes is None else champion.predicted.mean(axis=0)
        dummy = DayPredictions(
            champion.y, np.full_like(champion.predicted, value), champion.classes, DAY
        )
        monkeypatch.setattr(gate, "baseline", lambda *_: None)
        monkeypatch.setattr(gate, "predict_holdout", lambda *_: dummy)
        errors = {"candidate": 1.0 - before, "baseline": 0.5}
        record = pd.DataFrame(
            {"segment": part, "model": model, "brier": error, "mae": error}
            for part in ("all", "place = a", "place = b")
            for model, error in errors.items()
        )
        changed = LIMITS.model_copy(update=limits)
        return gate.doubt_rows(
            champion, SEGMENTS, SEGMENTS, record, settings(params, task), changed
        )

    return check


@pytest.mark.parametrize("make", [classifier, regressor])
def test_rows_on_which_the_champion_is_suddenly_worthless(make, suspect):
    """Labels that are wrong in one place; unless the champion was worthless there before."""
    assert suspect(make(1)).passed
    champion, there = make(1), (SEGMENTS["place"] == "a").to_numpy()
    champion.y = np.where(there, champion.y.max() + champion.y.min() - champion.y, champion.y)
    found = suspect(champion)
    assert not found.passed
    assert "place = a" in found.message
    assert "place = b" not in found.message
    assert suspect(champion, before=False).passed
    assert suspect(champion, segment_tolerance=100.0).passed


def test_the_record_is_of_when_the_champion_was_judged(trained, params):
    version = find_version(tracking.connect(), params.register_.name, "champion")
    record = challenger.record(version)
    assert {"candidate", "baseline"} <= set(record["model"])
    assert "all" in set(record["segment"])


def test_baseline(rows, params):
    """A model that has learnt nothing."""
    train, holdout = rows
    if params.task == "regression":
        model = gate.baseline(train, params)
    else:
        model = DummyClassifier(strategy="stratified", random_state=0)
        model.fit(train, gate.data.xy(train, params)[1])
    checks = gate.against_baseline(
        gate.predict_holdout(model, holdout, params), train, holdout, params
    )
    assert "baseline" in {check.name for check in checks if not check.passed}


def test_a_real_model_passes(model, rows, params):
    judged = gate.predict_holdout(model, rows[1], params)
    better, sane = gate.against_baseline(judged, *rows, params)
    assert sane.passed
    if not better.passed:
        pytest.skip(f"on a sample of this data: {better.message}")


def test_sanity():
    for answers in (np.full((9, 2), 0.5), np.full((9, 2), np.nan), RANDOM.random((9, 2))):
        assert not gate.sanity(
            DayPredictions(np.zeros(9), answers, np.arange(2), np.zeros(9, int))
        ).passed
    for answers in (np.zeros(9), np.array([1.0, np.inf])):
        assert not gate.sanity(
            DayPredictions(answers, answers, None, np.zeros(len(answers), int))
        ).passed
    assert gate.sanity(classifier(1)).passed
    assert gate.sanity(regressor(1)).passed


class Slow:
    """A model that takes so many milliseconds more for each call."""

    def __init__(self, milliseconds: float) -> None:
        self.seconds = milliseconds / 1000

    def predict(self, rows):
        time.sleep(self.seconds)
        return np.zeros(len(rows))


def test_latency(model, X):
    assert gate.latency(model, None, X, limit=10_000).passed
    assert not gate.latency(model, None, X, limit=1e-6).passed


def test_latency_beside_a_champion_that_is_slow_now():
    """On a busy machine both are slow; what is much slower than the champion is refused all the same."""
    rows = pd.DataFrame({"x": [1.0]})
    champion, alike, slower = Slow(20), Slow(20), Slow(60)
    assert gate.latency(alike, champion, rows, limit=10).passed
    assert not gate.latency(slower, champion, rows, limit=10).passed
    assert not gate.latency(alike, champion, rows, limit=1).passed
    assert gate.latency(slower, champion, rows, limit=1000).passed


def test_signature():
    now = Kinds({"a": "number", "b": "text"})
    assert gate.signature(now, now, [], LIMITS).passed
    assert gate.signature(now, None, [], LIMITS).passed
    assert gate.signature(Kinds({"a": "number"}), now, [], LIMITS).passed
    for old in (Kinds({"a": "number"}), Kinds({"a": "number", "b": "date"})):
        check = gate.signature(now, old, [], LIMITS)
        assert not check.passed
        assert "b" in check.message
        assert gate.signature(now, old, [], LIMITS.model_copy(update={"new_inputs": True})).passed
        assert gate.signature(now, old, ["b"], LIMITS).passed
