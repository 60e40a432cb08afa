"""The feature store: no row sees its future, and online is offline, row by row."""

import numpy as np
import pandas as pd
import pytest

from << cookiecutter.package_name >> import feature_views
from << cookiecutter.package_name >>.continuous_training.features import offline
from << cookiecutter.package_name >>.continuous_training.features.online import (
    OnlineStore,
)
from << cookiecutter.package_name >>.continuous_training.features.view import (
    View,
)
from << cookiecutter.package_name >>.experiment import dataset, floors, tables
from << cookiecutter.package_name >>.experiment.errors import UserError
from << cookiecutter.package_name >>.experiment.params import Data

DATA = Data(source="none", target="delay", time="time")
VIEWS = [
    View("place_3h", by=["place"], column="delay", window="3h"),
    View("both_2D", by=["place", "number"], column="delay", window="2D"),
]
LEAD = pd.Timedelta(hours=1)


@pytest.fixture
def history(monkeypatch) -> pd.DataFrame:
    """Rows of ten days; each is known some hours after its time, a few never are."""
    monkeypatch.setattr(feature_views, "VIEWS", VIEWS)
    monkeypatch.setattr(feature_views, "AVAILABLE", "known")
    monkeypatch.setattr(feature_views, "LEAD", LEAD)
    random, rows = np.random.default_rng(0), 300
    time = pd.Timestamp("2025-01-01") + pd.to_timedelta(random.integers(14400, size=rows), "min")
    frame = pd.DataFrame(
        {
            "time": time.astype("datetime64[us]"),
            "place": random.choice(["a", "b", None], rows),
            "number": random.integers(3, size=rows).astype(float),
            "delay": random.normal(size=rows).round(2),
        }
    )
    frame["known"] = frame["time"] + pd.to_timedelta(random.integers(600, size=rows), "min")
    frame.loc[frame.sample(20, random_state=0).index, "known"] = pd.NaT
    return frame.sort_values("time", ignore_index=True)


def by_hand(row: pd.Series, history: pd.DataFrame, view: offline.View) -> float:
    """The mean over what was available by then, and not longer ago than the window."""
    now = row["time"] - LEAD
    known = (history["known"] <= now) & (history["known"] > now - pd.Timedelta(view.window))
    for column in view.by:
        same = history[column] == row[column]
        known &= same | (history[column].isna() & pd.isna(row[column]))
    return history["delay"][known].mean()


def test_no_row_sees_its_future(history):
    """Each value is that of a search through all rows for those that were available."""
    found = offline.offline(history, DATA).add(history)
    for view in VIEWS:
        expected = [by_hand(row, history, view) for _, row in history.iterrows()]
        assert 0.02 < np.isnan(expected).mean() < 0.9
        np.testing.assert_allclose(found[view.name], expected, atol=1e-12)


def test_what_is_known_later_changes_nothing(frame, params):
    """On the project's own data: the newest row but one is the same without all that came after."""
    store = floors.feature_store(params.data)
    if store is None:
        pytest.skip("no feature views for such data")
    rows = frame.sort_values(params.data.time).tail(500).head(20)
    history = tables.read(dataset.batches(params.data), params.data)
    whole = offline.offline(history, params.data).add(rows)
    for label in rows.index:
        now = rows.loc[label, params.data.time] - feature_views.LEAD
        past = history[history[feature_views.AVAILABLE] <= now]
        then = offline.offline(past, params.data).add(rows.loc[[label]])
        pd.testing.assert_frame_equal(then, whole.loc[[label]])


def test_online_is_offline_row_by_row(history, tmp_path):
    store, online = (
        offline.offline(history, DATA),
        OnlineStore(f"sqlite:///{tmp_path / 'online.db'}"),
    )
    online.materialize(store)
    pd.testing.assert_frame_equal(online.lookup(history, DATA), store.add(history))


def test_only_what_is_new_is_written(history, tmp_path):
    """And a view as a whole, when an older batch came late or was replaced."""
    online = OnlineStore(f"sqlite:///{tmp_path / 'online.db'}")
    first, late = history[history["known"] < "2025-01-08"], history["place"] != "b"
    whole = offline.offline(history, DATA)
    sizes = {view.name: len(whole.tables[view.name]) for view in VIEWS}
    before = online.materialize(offline.offline(first, DATA))
    after = online.materialize(whole)
    assert {name: before[name] + after[name] for name in sizes} == sizes
    assert min(before.values()) > min(after.values()) > 0
    assert set(online.materialize(whole).values()) == {0}
    changed = history.assign(delay=history["delay"].where(history.index != 5, 99.0))
    for other in (history[late], history, changed):
        store = offline.offline(other, DATA)
        assert online.materialize(store) == {n: len(t) for n, t in store.tables.items()}
        pd.testing.assert_frame_equal(online.lookup(other, DATA), store.add(other))


def test_a_view_that_is_gone_is_deleted(history, tmp_path, monkeypatch):
    online = OnlineStore(f"sqlite:///{tmp_path / 'online.db'}")
    online.materialize(offline.offline(history, DATA))
    monkeypatch.setattr(feature_views, "VIEWS", VIEWS[1:])
    online.materialize(offline.offline(history, DATA))
    with online.engine.connect() as connection:
        names = connection.exec_driver_sql("select distinct view from feature_store").scalars()
        assert set(names) == {VIEWS[1].name}


def test_data_without_the_column_has_no_views(history):
    assert offline.offline(history.drop(columns="known"), DATA) is None
    assert offline.offline(history, DATA.model_copy(update={"time": None})) is None
    with pytest.raises(UserError, match="place_3h: there is no column 'delay'"):
        offline.offline(history.drop(columns="delay"), DATA)
    with pytest.raises(UserError, match="column 'number' is missing"):
        offline.offline(history, DATA).add(history.drop(columns="number"))
