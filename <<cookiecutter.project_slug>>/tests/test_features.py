"""Preparation: columns of any type become float64 or words, the same in training and serving."""

import datetime
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from << cookiecutter.package_name >> import data
from << cookiecutter.package_name >>.experiment.column_types import (
    Kinds,
    canonical,
    json_rows,
    kinds,
)
from << cookiecutter.package_name >>.experiment.errors import UserError
from << cookiecutter.package_name >>.experiment.tidy import Tidy
from << cookiecutter.package_name >>.features import derive

NOON = datetime.datetime(2013, 4, 1, 12)
COLUMNS = {
    "integer": (pd.array([1, None, 3], dtype="Int64"), "number"),
    "boolean": (pd.array([True, None, False], dtype="boolean"), "number"),
    "decimal": ([Decimal("1.5"), None, Decimal("2.5")], "number"),
    "duration": (pd.to_timedelta(["1h", None, "3h"]), "number"),
    "category of numbers": (pd.Categorical([1, None, 3]), "number"),
    "text": (["a", None, "b"], "text"),
    "category": (pd.Categorical(["a", None, "b"]), "text"),
    "mixed": (["a", None, 3], "text"),
    "date": ([NOON.date(), None, NOON.date()], "date"),
    "time with zone": (pd.to_datetime([NOON, None, NOON]).tz_localize("Asia/Tokyo"), "date"),
    "nothing": ([None, None, None], "empty"),
}
DTYPES = {"number": "float64", "text": "str", "date": "datetime64[us]", "empty": "float64"}


@pytest.mark.parametrize("name", COLUMNS)
def test_each_type_has_one_form(name):
    values, kind = COLUMNS[name]
    frame = pd.DataFrame({name: values})
    found = kinds(frame)
    assert found == {name: kind}
    ready = canonical(frame, found)
    assert ready[name].dtype == DTYPES[kind]
    assert ready[name].isna()[1]
    pd.testing.assert_frame_equal(canonical(ready, found), ready)


def test_values_keep_their_meaning():
    frame = pd.DataFrame({name: values for name, (values, _) in COLUMNS.items()})
    ready = canonical(frame, kinds(frame)).iloc[0]
    assert ready["boolean"] == 1
    assert ready["decimal"] == 1.5
    assert ready["duration"] == 3600
    assert ready["time with zone"] == pd.Timestamp(NOON) - pd.Timedelta(hours=9)


def test_some_dates_have_fractions_of_a_second():
    """As Python writes them, which leaves zeros out."""
    text = pd.DataFrame({"when": ["2025-01-01T10:30:00", "2025-01-01T10:30:00.303608", None]})
    when = canonical(text, Kinds(when="date"))["when"]
    assert when[1] - when[0] == pd.Timedelta(microseconds=303608)
    assert when.isna()[2]


def test_a_column_of_another_kind_is_named():
    with pytest.raises(UserError, match="'size'"):
        canonical(pd.DataFrame({"size": ["big"]}), Kinds(size="number"))
    with pytest.raises(UserError, match="'size' is missing"):
        canonical(pd.DataFrame({"weight": [1.0]}), Kinds(size="number"))


def test_the_model_sees_numbers_and_words_only(X, params):
    ready = derive(canonical(X, kinds(X)), params.data.time)
    assert ready.index.equals(X.index)
    for column in ready:
        assert ready[column].dtype in ("float64", "str"), column


def test_tidy_repeats_itself_and_leaves_its_input_alone(X, params):
    before = X.copy()
    tidy = Tidy(kinds(X), params.data.time).fit(X)
    once = tidy.transform(X)
    pd.testing.assert_frame_equal(X, before)
    pd.testing.assert_frame_equal(tidy.transform(X), once)
    pd.testing.assert_frame_equal(tidy.transform(X.iloc[::-1]).iloc[::-1], once)


def test_a_row_needs_no_other_row(X, params):
    tidy = Tidy(kinds(X), params.data.time).fit(X)
    alone = pd.concat([tidy.transform(X.iloc[[k]]) for k in range(5)])
    pd.testing.assert_frame_equal(alone, tidy.transform(X).head(5))


def test_a_missing_word_is_a_word_of_its_own(X, params):
    words = kinds(X).of("text")
    if not words:
        pytest.skip("the data have no text column")
    tidy = Tidy(kinds(X), params.data.time).fit(X)
    for gap in (None, np.nan, pd.NA):
        row = X.head(1).astype({words[0]: object}).assign(**{words[0]: [gap]})
        assert isinstance(tidy.transform(row)[words[0]].iloc[0], str)


def test_a_column_without_a_value_trains_and_scores(rows, params):
    from << cookiecutter.package_name >>.model import build

    X, y = data.xy(rows[0], params)
    column = (kinds(X).of("number") + kinds(X).of("text"))[0]
    emptied = X.assign(**{column: np.nan})
    fitted = build(emptied, params).fit(emptied, y)
    assert len(fitted.predict(X.head(20))) == 20  # and values that come later do no harm
    tidy = Tidy(kinds(X), params.data.time).fit(emptied)
    assert not tidy.transform(emptied).isna().all().any()


def test_served_rows_are_scored_as_the_training_rows(model, X):
    served = [json.loads(row) for row in json_rows(X)]
    np.testing.assert_array_equal(model.predict(pd.DataFrame(served)), model.predict(X))
    one_by_one = [model.predict(pd.DataFrame([row]))[0] for row in served[:5]]
    np.testing.assert_array_equal(one_by_one, model.predict(X.head(5)))
