"""The service's feature store in memory: the numbers of the database, for every row."""

import asyncio
import dataclasses
from collections.abc import Callable

import httpx
import msgspec
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
from << cookiecutter.package_name >>.delivery.release.checks import request
from << cookiecutter.package_name >>.delivery.service import app, online_features
from << cookiecutter.package_name >>.experiment import floors, registry
from << cookiecutter.package_name >>.experiment.evaluate import predict
from << cookiecutter.package_name >>.experiment.params import Data

DATA = Data(source="none", target="delay", time="time")
VIEWS = [
    View("place_3h", by=["place"], column="delay", window="3h"),
    View("both_2D", by=["place", "kind"], column="delay", window="2D"),
]


@pytest.fixture
def history(monkeypatch) -> pd.DataFrame:
    """Rows of ten days, each known some hours after its time."""
    monkeypatch.setattr(feature_views, "VIEWS", VIEWS)
    monkeypatch.setattr(feature_views, "AVAILABLE", "known")
    monkeypatch.setattr(feature_views, "LEAD", pd.Timedelta(hours=1))
    random, rows = np.random.default_rng(0), 300
    time = pd.Timestamp("2025-01-01") + pd.to_timedelta(random.integers(14400, size=rows), "min")
    frame = pd.DataFrame(
        {
            "time": time.astype("datetime64[us]"),
            "place": random.choice(["a", "b", None], rows),
            "kind": random.choice(["x", "y"], rows),
            "delay": random.normal(size=rows).round(2),
        }
    )
    frame["known"] = frame["time"] + pd.to_timedelta(random.integers(600, size=rows), "min")
    return frame.sort_values("time", ignore_index=True)


@pytest.fixture
def database(tmp_path) -> Callable[[pd.DataFrame], str]:
    """Materializes a history; returns the database's URL."""
    url = f"sqlite:///{tmp_path / 'online.db'}"

    def write(rows: pd.DataFrame) -> str:
        OnlineStore(url).materialize(offline.offline(rows, DATA))
        return url

    return write


def ask(found: online_features.OnlineFeatures, *rows: dict) -> list[dict]:
    """What is put into rows that hold no feature."""
    fill = found.filler([*rows[0], *(view.name for view in VIEWS)])
    return fill([(*row.values(), *[msgspec.UNSET] * len(VIEWS)) for row in rows])[1]


def same(found: online_features.OnlineFeatures, url: str, rows: pd.DataFrame) -> None:
    expected = OnlineStore(url).lookup(rows, DATA)[[v.name for v in VIEWS]]
    asked = rows.astype(object).where(rows.notna(), None)
    asked["time"] = rows["time"].dt.to_pydatetime()
    got = pd.DataFrame(ask(found, *asked.to_dict("records")), rows.index).astype(float)
    pd.testing.assert_frame_equal(got, expected, check_exact=True)


def test_in_memory_is_as_in_the_database(history, database):
    """To the last digit: at first, with a batch more, and after one was replaced."""
    found = online_features.OnlineFeatures(DATA, database(history.head(200)))
    found.refresh()
    same(found, found.url, history)
    for rows in (history, history.assign(delay=history["delay"].where(history.index > 9, 5.0))):
        database(rows)
        found.refresh()
        same(found, found.url, history)
    assert found.missed == 0


def test_what_has_not_changed_is_not_read_again(history, database, monkeypatch):
    found = online_features.OnlineFeatures(DATA, database(history))
    found.refresh()
    database(history)
    monkeypatch.setattr(online_features.ViewSums, "add", None)
    found.refresh()
    same(found, found.url, history)


def test_without_the_database_it_goes_on(history, database, tmp_path, caplog):
    found = online_features.OnlineFeatures(DATA, "postgresql://nobody@127.0.0.1:1/away")
    asked = {"time": history["time"].iloc[-1].to_pydatetime(), "place": "a", "kind": "x"}
    found.refresh()
    found.refresh()
    assert found.missed == 2
    assert caplog.text.count("FEATURE_STORE_URL") == 1
    assert ask(found, asked) == [dict.fromkeys([view.name for view in VIEWS])]
    found.url, found.store = database(history), None
    found.refresh()
    known = ask(found, asked)
    assert None not in known[0].values()
    (tmp_path / "online.db").write_bytes(b"this is no database any more")
    found.store = None
    found.refresh()
    assert (found.missed, ask(found, asked)) == (3, known)


def test_a_service_is_not_ready_without_its_views(history, database):
    """Views that are empty or too old are said; those of other columns do not count."""
    features = online_features.OnlineFeatures(DATA, database(history.head(0)))
    features.refresh()
    assert features.lacking(["place_3h"]) == "view place_3h is empty: run the step `materialize`"
    assert features.lacking(["temp"]) is None
    feature_views.VIEWS[0] = dataclasses.replace(VIEWS[0], max_age="1D")
    try:
        features = online_features.OnlineFeatures(DATA, database(history))
        features.refresh()
        assert features.lacking(["both_2D"]) is None
        assert "view place_3h is older than 1D" in features.lacking(["both_2D", "place_3h"])
        ago = pd.Timestamp.now() - history["known"].max()
        database(history.assign(time=history["time"] + ago, known=history["known"] + ago))
        features.refresh()
        assert features.lacking(["both_2D", "place_3h"]) is None
    finally:
        feature_views.VIEWS[0] = dataclasses.replace(VIEWS[0], max_age=None)


def test_an_unknown_entity_or_time_has_no_value(history, database):
    found = online_features.OnlineFeatures(DATA, database(history))
    found.refresh()
    moment = history["time"].iloc[-1].to_pydatetime()
    for time, place in ((None, "a"), (moment, "nowhere")):
        known = ask(found, {"time": time, "place": place, "kind": "x"})
        assert known == [dict.fromkeys([view.name for view in VIEWS])]


def test_a_request_need_not_hold_what_the_store_knows(trained, params, X, tmp_path, monkeypatch):
    """The answers are those of batch scoring, with and without a column of a view."""
    version = registry.require_version(app.tracking.connect(), params.register_.name, "champion")
    served = app.ServedVersion(version, params)
    views = [view for view in online_features.view_names(params.data) if view in served.kinds]
    if not views:
        pytest.skip("the model has no feature views")
    monkeypatch.setenv("FEATURE_STORE_URL", f"sqlite:///{tmp_path / 'online.db'}")
    OnlineStore().materialize(floors.feature_store(params.data))
    running = app.Service(served, app.settings.Service(), data=params.data)

    async def ready() -> httpx.Response:
        transport = httpx.ASGITransport(running)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/ready")

    assert "is empty" in asyncio.run(ready()).json()["detail"]
    running.online.refresh()
    assert asyncio.run(ready()).status_code == 200
    given = X[list(served.kinds)]
    expected = predict(served.loaded.model, given)

    async def ask(rows: pd.DataFrame) -> list:
        transport = httpx.ASGITransport(running)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {"Content-Type": "application/json"}
            answer = await client.post("/predict", content=request(rows), headers=headers)
        return answer.raise_for_status().json()["predictions"]

    for rows in (given, given.drop(columns=views), given.drop(columns=views[:1])):
        np.testing.assert_allclose(asyncio.run(ask(rows)), expected, rtol=0, atol=1e-9)
    gone = given.assign(**dict.fromkeys(views, np.nan))  # null is a value, too
    expected = predict(served.loaded.model, gone)
    np.testing.assert_allclose(asyncio.run(ask(gone)), expected, rtol=0, atol=1e-9)
