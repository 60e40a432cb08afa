"""The prediction service: the answers of batch scoring, and a 422 that names the field."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import uvicorn

from << cookiecutter.package_name >> import registry, tracking
from << cookiecutter.package_name >>.delivery import checks, service, settings
from << cookiecutter.package_name >>.evaluate import predict


@pytest.fixture(scope="module")
def loaded(trained: Path, params) -> registry.Loaded:
    client = tracking.connect()
    return registry.load_model(
        registry.require_version(client, params.register_.name, "champion"), params
    )


@pytest.fixture(scope="module")
def client(loaded: registry.Loaded, params) -> Iterator[httpx.Client]:
    """A client of a real server, in a thread."""
    version = registry.require_version(tracking.connect(), params.register_.name, "champion")
    limits = settings.Service(rows=50, body=100_000)
    server = uvicorn.Server(uvicorn.Config(service.app(loaded, version, limits), log_level="error"))
    socket = service.listen(0, "127.0.0.1")
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=5)) as client:
        yield client
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def given(X: pd.DataFrame, loaded: registry.Loaded) -> pd.DataFrame:
    return X[list(loaded.kinds)].head(50)


def post(client: httpx.Client, rows: pd.DataFrame):
    headers = {"Content-Type": "application/json"}
    return client.post("/predict", content=checks.request(rows), headers=headers)


def test_answers_are_those_of_batch_scoring(client, given, loaded):
    """Row by row too, in any order of the columns, and with gaps."""
    holey = given.mask(np.random.default_rng(0).random(given.shape) < 0.2)
    for rows in (given, given.iloc[:, ::-1], holey):
        expected = predict(loaded.model, rows[list(loaded.kinds)])
        together = np.array(post(client, rows).json()["predictions"])
        np.testing.assert_allclose(together, expected, rtol=0, atol=1e-9)
    for k in range(5):
        alone = post(client, given.iloc[[k]]).json()["predictions"]
        np.testing.assert_allclose(alone, predict(loaded.model, given.iloc[[k]]), atol=1e-9)


def test_a_column_left_out_is_a_missing_value(client, given, loaded):
    column = list(loaded.kinds)[-1]
    answer = post(client, given.drop(columns=column)).json()["predictions"]
    gap = given.assign(**{column: given[column].iloc[:0].reindex(given.index)})
    np.testing.assert_allclose(answer, predict(loaded.model, gap), atol=1e-9)


def test_bad_requests_are_told_which_field(client, loaded):
    kinds = loaded.kinds
    wrong = {"number": "far", "text": 1, "date": "yesterday"}
    for column in {kind: name for name, kind in kinds.items()}.values():
        answer = client.post("/predict", json={"rows": [{column: wrong[kinds[column]]}]})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["body", "rows", 0, column]
        assert str(wrong[kinds[column]]) not in answer.text
    for body in ({"rows": [{"no such column": 1}]}, {"rows": []}, {"rows": [{}] * 51}, {}, []):
        assert client.post("/predict", json=body).status_code == 422, body


def test_a_large_body_is_refused(client):
    assert client.post("/predict", content=b" " * 100_001).status_code == 413


def test_it_says_what_it_serves(client, loaded):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json()["version"] == client.get("/model").json()["version"]
    assert client.get("/model").json()["inputs"] == loaded.kinds
    row = client.get("/openapi.json").json()["components"]["schemas"]["Row"]
    assert list(row["properties"]) == list(loaded.kinds)
