"""The prediction service: the answers of batch scoring, and a 422 that names the field."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import uvicorn
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from << cookiecutter.package_name >> import features
from << cookiecutter.package_name >>.delivery import settings
from << cookiecutter.package_name >>.delivery.release import checks
from << cookiecutter.package_name >>.delivery.service import app, fast, scoring
from << cookiecutter.package_name >>.experiment import (
    registry,
    tracking,
    train,
)
from << cookiecutter.package_name >>.experiment.evaluate import predict

LIMITS = settings.Service(rows=250, body=200_000)
JSON = {"Content-Type": "application/json"}
DERIVE = features.derive


@pytest.fixture(scope="module")
def version(trained: Path, params):
    return registry.require_version(tracking.connect(), params.register_.name, "champion")


@pytest.fixture(scope="module")
def loaded(version, params) -> registry.Loaded:
    return registry.load_model(version, params)


@pytest.fixture(scope="module", params=["fast", "generic"])
def running(request, version, params) -> app.Service:
    served = app.ServedVersion(version, params)
    if request.param == "generic":
        served.fast = None
    return app.Service(served, LIMITS)


@pytest.fixture(scope="module")
def client(running: app.Service) -> Iterator[httpx.Client]:
    """A client of a real server, in a thread."""
    server = uvicorn.Server(uvicorn.Config(running, log_level="error", lifespan="off"))
    sockets = app.listen(0, "127.0.0.1")
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    options = {"headers": JSON, "transport": httpx.HTTPTransport(retries=5)}
    with httpx.Client(base_url=url, **options) as client:
        yield client
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def given(X: pd.DataFrame, loaded: registry.Loaded) -> pd.DataFrame:
    return X[list(loaded.kinds)]


def post(client: httpx.Client, rows: pd.DataFrame):
    return client.post("/predict", content=checks.request(rows))


def is_default_form(model) -> bool:
    """A model of another form cannot be fast."""
    boosting = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)
    return isinstance(model.steps[-1][1], boosting)


def own_derive(frame: pd.DataFrame, time: str | None) -> pd.DataFrame:
    """The columns of `derive`, and more of every kind."""
    more = {"known_values": frame.notna().sum(axis=1).astype("float64"), "nothing": np.nan}
    for name, values in frame.items():
        if pd.api.types.is_datetime64_dtype(values.dtype):
            more[f"{name}_month"] = values.dt.month.astype("float64")
        elif pd.api.types.is_string_dtype(values.dtype):
            more[f"{name}_first_letter"] = values.str[:1]
    return DERIVE(frame, time).assign(**more)


def test_the_default_form_is_scored_the_fast_way(version, loaded, params):
    """With `derive` of features.py as it is: a column more there must cost no more than a DataFrame."""
    if not is_default_form(loaded.model):
        pytest.skip("the model has another form than that of model.py")
    served = app.ServedVersion(version, params)
    assert served.fast is not None, served.way()


def test_a_derive_of_the_owners_is_scored_the_fast_way(
    version, loaded, params, rows, given, monkeypatch
):
    """One that adds columns; equal to scikit-learn, one row or many."""
    if not is_default_form(loaded.model):
        pytest.skip("the model has another form than that of model.py")
    monkeypatch.setattr(features, "derive", own_derive)
    model = train.fit(rows[0], params)
    assert "known_values" in model.named_steps["encode"].feature_names_in_
    monkeypatch.setattr(scoring, "read_model", lambda *_: registry.Loaded(model, loaded.kinds))
    served = app.ServedVersion(version, params)
    assert served.way()["way"] == "DataFrame and arrays", served.way()
    sent = given.mask(np.random.default_rng(0).random(given.shape) < 0.2)
    for some in (sent, sent.head(1), pd.concat([sent] * 3)):
        answers = asyncio.run(served.score(fast.records(some)))
        np.testing.assert_allclose(answers, predict(model, some), rtol=0, atol=1e-9)


def test_another_estimator_is_scored_by_scikit_learn(version, loaded, params, given, monkeypatch):
    steps = [*loaded.model.steps[:-1], ("estimator", FunctionTransformer())]
    other = Pipeline(steps)
    monkeypatch.setattr(fast, "predict", None)
    with pytest.raises(ValueError, match="FunctionTransformer"):
        fast.checked(other, given)
    monkeypatch.setattr(fast, "checked", lambda *_: fast.FastScorer(other))
    served = app.ServedVersion(version, params)
    assert served.way()["way"] == "DataFrame"
    assert "FunctionTransformer" in served.way()["because"]
    answers = asyncio.run(served.score(fast.records(given)))
    np.testing.assert_array_equal(answers, predict(loaded.model, given))


def test_answers_are_those_of_batch_scoring(client, given, loaded):
    """Row by row too, in any order of the columns, with gaps and with words never seen."""
    holey = given.mask(np.random.default_rng(0).random(given.shape) < 0.2)
    text = [column for column, kind in loaded.kinds.items() if kind == "text"]
    odd = given.assign(**{column: "no such word" for column in text})
    for rows in (given, given.iloc[:, ::-1], holey, odd):
        expected = predict(loaded.model, rows[list(loaded.kinds)])
        together = np.array(post(client, rows).json()["predictions"])
        np.testing.assert_allclose(together, expected, rtol=0, atol=1e-9)
        for k in range(5):
            alone = post(client, rows.iloc[[k]]).json()["predictions"]
            np.testing.assert_allclose(alone, expected[[k]], rtol=0, atol=1e-9)


def test_a_column_left_out_is_a_missing_value(client, given, loaded):
    column = list(loaded.kinds)[-1]
    answer = post(client, given.drop(columns=column)).json()["predictions"]
    gap = given.assign(**{column: given[column].iloc[:0].reindex(given.index)})
    np.testing.assert_allclose(answer, predict(loaded.model, gap), rtol=0, atol=1e-9)


def test_a_date_with_a_zone_is_utc(client, loaded):
    for column in loaded.kinds.of("date")[:1]:
        plain, zoned = "2013-05-01T10:30:00", "2013-05-01T06:30:00-04:00"
        answers = [
            client.post("/predict", json={"rows": [{column: when}]}).json()["predictions"]
            for when in (plain, zoned, "2013-05-01 10:30")
        ]
        assert answers[0] == answers[1] == answers[2]


def test_bad_requests_are_told_which_field(client, loaded):
    kinds = loaded.kinds
    wrong = {"number": "far", "text": 1, "date": "yesterday"}
    for column in {kind: name for name, kind in kinds.items()}.values():
        answer = client.post("/predict", json={"rows": [{}, {column: wrong[kinds[column]]}]})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["body", "rows", 1, column]
        assert str(wrong[kinds[column]]) not in answer.text.replace("1,", "")
    many = {"rows": [{}] * (LIMITS.rows + 1)}
    for body in ({"rows": [{"no such column": 1}]}, {"rows": []}, many, {}, [], None):
        assert client.post("/predict", json=body).status_code == 422, body
    assert client.post("/predict", content=b"{").status_code == 422


def test_a_large_body_is_refused(client):
    assert client.post("/predict", content=b" " * 200_001).status_code == 413


def test_a_token_is_asked_for(client, running, given):
    running.token = "for-the-test"  # noqa: S105
    try:
        assert post(client, given).status_code == 401
        client.headers["Authorization"] = "Bearer for-the-test"
        assert post(client, given).status_code == 200
    finally:
        running.token = ""
        del client.headers["Authorization"]


def test_it_takes_json_alone(client):
    """Other kinds of text come from pages of foreign sites without a question to the service."""
    body = b'{"rows": [{}]}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        answer = client.post("/predict", content=body, headers={"Content-Type": kind})
        assert (answer.status_code, "application/json" in answer.text) == (415, True)
    for kind in ("application/json; charset=utf-8", "Application/JSON"):
        answer = client.post("/predict", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 200


def test_on_the_loopback_it_answers_to_its_own_names(client, running, monkeypatch):
    """Else a page of a foreign site whose name leads here could read the answers."""
    assert app.host_names("0.0.0.0") is None  # noqa: S104
    monkeypatch.setenv("SERVICE_HOSTS", "scores.example, Other.example")
    running.hosts = app.host_names("127.0.0.1")
    try:
        for host in ("127.0.0.1:1", "localhost", "[::1]:8001", "[::1]", "Scores.example:443"):
            assert client.get("/ready", headers={"Host": host}).status_code == 200, host
        for host in ("evil.example", "127.0.0.1.evil.example:80", "localhost:evil", ""):
            for path in ("/ready", "/model", "/metrics", "/docs", "/openapi.json"):
                assert client.get(path, headers={"Host": host}).status_code == 421, (host, path)
            answer = client.post("/predict", json={"rows": [{}]}, headers={"Host": host})
            assert answer.status_code == 421
    finally:
        running.hosts = None


def test_it_says_what_it_serves(client, loaded, running):
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/ready").json()["version"] == client.get("/model").json()["version"]
    assert client.get("/model").json()["inputs"] == loaded.kinds
    document = client.get("/openapi.json").json()
    assert list(document["components"]["schemas"]["Row"]["properties"]) == list(loaded.kinds)
    assert list(document["paths"]["/predict"]) == ["post"]
    assert {"200", "413", "415", "421", "422"} <= set(
        document["paths"]["/predict"]["post"]["responses"]
    )
    assert "requests_total" in client.get("/metrics").text
