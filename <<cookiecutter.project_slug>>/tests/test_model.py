"""The model's behaviour: it learns, it repeats itself, and odd rows do not upset it."""

import numpy as np
import pandas as pd
import pytest

from << cookiecutter.package_name >> import data
from << cookiecutter.package_name >>.experiment import evaluate, train
from << cookiecutter.package_name >>.experiment.column_types import kinds
from << cookiecutter.package_name >>.experiment.evaluate import predict
from << cookiecutter.package_name >>.experiment.params import Params
from << cookiecutter.package_name >>.model import candidates, estimator


def with_arguments(params: Params, **arguments) -> Params:
    """The settings with those of `arguments` that the estimator takes."""
    takes = estimator(params).get_params()
    known = {key: value for key, value in arguments.items() if key in takes}
    model = params.model.model_copy(update={"arguments": params.model.arguments | known})
    return params.model_copy(update={"model": model})


def test_beats_the_baseline(model, rows, params):
    older, newer = rows
    if len(older) < 1000:
        pytest.skip("too few rows to judge a model by")
    models = {"model": model, "baseline": evaluate.baseline(older, params)}
    table = evaluate.compare(models, newer, params).set_index(["segment", "model"])
    metric = params.evaluate.metric
    ours, base = table.loc["all"].loc[["model", "baseline"], metric]
    better = ours > base if metric in evaluate.GREATER_IS_BETTER else ours < base
    assert better, f"{metric}: {ours:.4f}, baseline {base:.4f}"


def test_learns_ten_rows_by_heart(rows, params):
    target = params.data.target
    older = rows[0].drop_duplicates(data.xy(rows[0], params)[0].columns)
    if params.task == "classification":
        common = older[target].value_counts().index[:2]
        ten = pd.concat([older[older[target] == label].head(5) for label in common])
    else:
        ten = older.drop_duplicates(target).head(10)
    eager = with_arguments(params, min_samples_leaf=1, max_iter=300, learning_rate=0.3)
    X, y = data.xy(ten, eager)
    predicted = train.fit(ten, eager).predict(X)
    if params.task == "classification":
        assert list(predicted) == list(y)
    else:
        np.testing.assert_allclose(predicted, y, atol=0.05 * np.std(y))


def test_the_seed_makes_it_repeatable(model, rows, X, params):
    again = train.fit(rows[0], params)
    np.testing.assert_array_equal(predict(again, X), predict(model, X))


def test_the_order_of_columns_does_not_matter(model, X):
    np.testing.assert_array_equal(predict(model, X[X.columns[::-1]]), predict(model, X))


def test_the_other_rows_do_not_matter(model, X):
    together = predict(model, X)
    np.testing.assert_array_equal(predict(model, X.iloc[5:8]), together[5:8])
    np.testing.assert_array_equal(predict(model, X.iloc[::-1])[::-1], together)


def test_unseen_words_and_missing_values_are_scored(model, X):
    for kind, values in {"text": ["never seen before", None], "number": [np.nan]}.items():
        for column in kinds(X).of(kind):
            for value in values:
                odd = X.head(3).astype({column: object}).assign(**{column: value})
                assert np.isfinite(predict(model, odd)).all(), (column, value)


def test_probabilities_add_up(model, X, params):
    if params.task == "regression":
        pytest.skip("a regressor has no probabilities")
    probability = predict(model, X)
    assert probability.shape == (len(X), len(model.classes_))
    assert (probability >= 0).all()
    np.testing.assert_allclose(probability.sum(axis=1), 1)


def test_the_estimator_takes_every_candidate(rows, params):
    drawn = {name: values[0] for name, values in candidates().items()}
    few = params.model_copy(update={"model": params.model.model_copy(update={"arguments": drawn})})
    train.fit(rows[0].head(500), few)


def test_metrics_of_a_known_answer():
    y, classes = np.array([0, 0, 1, 1]), np.array([0, 1])
    found = evaluate.metrics(y, np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]]), classes)
    assert found["roc_auc"] == 0.75
    assert found["accuracy"] == 0.75
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.49 + 0.04) / 4)
    found = evaluate.metrics(np.array([1.0, 3.0]), np.array([2.0, 5.0]), None)
    assert (found["mae"], found["bias"]) == (1.5, 1.5)
