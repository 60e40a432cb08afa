"""Whatever a client sends, it gets an answer or a 4xx, and the service lives on."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sql
import uvicorn

from << cookiecutter.package_name >>.delivery.monitoring import label_join
from << cookiecutter.package_name >>.delivery.release import checks
from << cookiecutter.package_name >>.delivery.service import (
    app,
    prediction_log,
    request_schema,
)
from << cookiecutter.package_name >>.experiment import registry, tracking
from << cookiecutter.package_name >>.experiment.column_types import Kinds

LIMITS = app.settings.Service(rows=250, body=200_000)
JSON = {"Content-Type": "application/json"}
# Text that means something to a database, a shell or a page; \\x00 is a character that PostgreSQL refuses.
HOSTILE = ["'; DROP TABLE predictions; --", '" OR ""="', "%s :a $1 {}", "\\\\'\\n\\t", "a\x00b"]
HOSTILE += ["\u202e\U0001f600", "<script>", "NULL", ""]
NUMBERS = {"NaN": 422, "Infinity": 422, "-1e400": 422, "1" + "0" * 400: 422, "1" + "0" * 5000: 422}
NUMBERS |= {"1e308": 200, "-5e-324": 200, "true": 200, '"1"': 422, "{}": 422, "[[[]]]": 422}
DATES = {'"0001-01-01T00:00:00+23:59"': 422, '"9999-12-31T23:59:59-23:59"': 422}
DATES |= {'"0001-01-01T00:00:00"': 200, '"9999-12-31T23:59:59.999999Z"': 200, '"2013-05-01"': 200}
DATES |= {'"0000-01-01T00:00:00"': 422, '"10000-01-01T00:00:00"': 422, '"2013-02-30"': 422}
DATES |= {"1367402400": 422, '"1367402400"': 422, "true": 422, "1e400": 422, '""': 422}
TEXTS = {r'"\ud800"': 422, r'"a\udc00b"': 422, r'"\ud83d\ude00"': 200, '"a\x00"': 422, "1": 422}
VALUES = {"number": NUMBERS, "date": DATES, "text": TEXTS}
BODIES = {
    b"": 422,
    b"\xef\xbb\xbf{}": 422,
    b"[" * 100_000: 422,
    b'{"rows":' * 20_000: 422,
    b'{"rows": [{}]} {}': 422,
    b'{"rows": [{"\xff": 1}]}': 422,
    '{"rows": [{}]}'.encode("utf-16"): 422,
    b'{"rows": [], "rows": [{}, {}]}': 200,  # the last of two equal keys counts
    b'\n{"rows"\n:\r\n[{}]}\n': 200,
    b'{"rows": [{' + b",".join(b'"a%d": 1' % k for k in range(15_000)) + b"}]}": 422,
}


@pytest.fixture(scope="module")
def version(trained: Path, params):
    return registry.require_version(tracking.connect(), params.register_.name, "champion")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> prediction_log.PredictionTable:
    folder = tmp_path_factory.mktemp("log")
    return prediction_log.PredictionTable(f"sqlite:///{folder / 'predictions.db'}")


@pytest.fixture(scope="module", params=["fast", "generic"])
def running(request, version, params, table, tmp_path_factory) -> Iterator[app.Service]:
    served = app.ServedVersion(version, params)
    if request.param == "generic":
        served.fast = None
    log = prediction_log.Journal(tmp_path_factory.mktemp("journal"), table, "dev", 10**8)
    yield app.Service(served, LIMITS, journal=log)
    log.close()


@pytest.fixture(scope="module")
def port(running: app.Service) -> Iterator[int]:
    """That of a real server, in a thread."""
    server = uvicorn.Server(uvicorn.Config(running, log_level="error", lifespan="off"))
    sockets = app.listen(0, "127.0.0.1")
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    yield sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(port: int) -> Iterator[httpx.Client]:
    """In the end the service answers as before."""
    url, transport = f"http://127.0.0.1:{port}", httpx.HTTPTransport(retries=5)
    with httpx.Client(base_url=url, transport=transport, timeout=30, headers=JSON) as client:
        yield client
        assert client.post("/predict", json={"rows": [{}]}).status_code == 200
        assert client.get("/health").json()["status"] == "ok"


def logged(running: app.Service, request: str) -> list[tuple[dict, str]]:
    """Features and prediction of a request, once the database has them."""
    table = running.journal.table
    own = table.table.c
    query = sql.select(own.features, own.prediction).where(own.request == request).order_by(own.row)
    for _ in range(100):
        table.create()
        with table.engine.connect() as connection:
            if found := connection.execute(query).fetchall():
                return [(json.loads(features), answer) for features, answer in found]
        running.journal.stop.wait(0.1)
    raise AssertionError("the request is not in the log")


def test_odd_values(client, version, params):
    """An answer, or a 422 that names the field."""
    for column, kind in registry.load_model(version, params).kinds.items():
        for value, status in VALUES[kind].items():
            body = f'{{"rows": [{{}}, {{{json.dumps(column)}: {value}}}]}}'.encode()
            answer = client.post("/predict", content=body)
            assert answer.status_code == status, (column, value[:50], answer.text)
            said = answer.json()["detail"][0] if status == 422 else {"loc": [], "type": ""}
            if status == 422 and said["type"] != "json_invalid":
                assert said["loc"] == ["body", "rows", 1, column]


def test_odd_bodies(client):
    for body, status in BODIES.items():
        answer = client.post("/predict", content=body)
        assert answer.status_code == status, (body[:50], answer.text)
        assert len(answer.content) < 50_000
    for kind in ("text/plain", "application/xml", "multipart/form-data", "nonsense"):
        headers = {"Content-Type": kind}
        assert client.post("/predict", content=b"{}", headers=headers).status_code == 415


def test_other_methods(client):
    for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = client.request(method, "/predict")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    for path in ("/predict/", "/%00", "/predict%20"):
        assert client.get(path).status_code == 404


def test_what_comes_in_pieces(client, running, port):
    """Chunks are one body; of a request that was cut off nothing is scored or logged."""
    body = b'{"rows": [{}]}'
    whole = client.post("/predict", content=(body[k : k + 1] for k in range(len(body))))
    assert len(logged(running, whole.json()["request"])) == 1
    before = running.metrics.rows.labels(str(running.main.version))._value.get()
    head = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    for rest in (
        b"Content-Length: 100\r\n\r\n" + body,
        b"Transfer-Encoding: chunked\r\n\r\n" + chunk,  # all is there, but for the end
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"Content-Length: -1\r\n\r\n" + body,
        b"\x00\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as sent:
            sent.sendall(head + rest)
    assert client.post("/predict", content=body).status_code == 200
    after = running.metrics.rows.labels(str(running.main.version))._value.get()
    assert after == before + 1


def test_hostile_text_comes_to_the_log_as_it_was(client, running, version, params):
    columns = registry.load_model(version, params).kinds.of("text")
    if not columns:
        pytest.skip("the model takes no text")
    rows = [dict.fromkeys(columns, text) for text in HOSTILE]
    answer = client.post("/predict", json={"rows": rows}).raise_for_status().json()
    found = logged(running, answer["request"])
    assert [features for features, _ in found] == rows
    assert [json.loads(text) for _, text in found] == answer["predictions"]
    assert running.journal.rejected == 0


def test_one_request_that_cannot_be_scored_fails_no_other(version, params):
    """They wait together, and go into one call."""
    served = app.ServedVersion(version, params)
    served.fast = None
    given = Kinds(served.kinds)
    real, waits = served.batcher.score_rows, threading.Event()

    def picky(rows: list[tuple]):
        waits.wait(10)
        if any("bad" in row for row in rows):
            raise ValueError("Input X contains a value too large")
        return real(rows)

    served.batcher.score_rows = picky
    running = app.Service(served, LIMITS)
    good, bad = [(None,) * len(given)], [("bad",) * len(given)]

    async def ask() -> list:
        asked = [asyncio.create_task(running._score(rows)) for rows in (good, good, bad, good)]
        await asyncio.sleep(0)  # each goes on until it waits for its answer
        waits.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, wrong, third = asyncio.run(ask())
    assert str(first) == str(second) == str(third)
    assert isinstance(wrong, ValueError)

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(running)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/predict", json={"rows": [{}]})

    running.main.inputs = lambda rows: bad
    answer = asyncio.run(post())
    assert (answer.status_code, "too large" in answer.text) == (422, True)


def test_numbers_go_to_the_last_bit(tmp_path):
    """From a table through a request and the prediction log: 10,000 doubles, bit by bit."""
    sent = np.frombuffer(np.random.default_rng(0).bytes(80_000), dtype=np.float64)
    sent = np.where(np.isfinite(sent), sent, 0.1)
    table = prediction_log.PredictionTable(f"sqlite:///{tmp_path / 'log.db'}")
    kinds = Kinds(x="number")
    log = prediction_log.Journal(tmp_path / "journal", table, "dev", 10**8)
    body = checks.request(pd.DataFrame({"x": sent}))
    found = request_schema.RequestSchema(kinds, len(sent)).rows(body)
    scored = [(k, 1, value) for k, (value,) in enumerate(found)]
    record = {"time": 1.0, "seconds": 0.0, "shadow": False, "looked_up": None}
    log.add(body, scored, request="all of them", **record)
    log.close()
    rows = label_join.PredictionLog(table, "dev", 0).newest(1, len(sent))[0].sort_values("row")
    logged = label_join.inputs(rows, kinds, None)["x"].to_numpy()
    answers = np.array([json.loads(text) for text in rows["prediction"]], dtype=float)
    for values in (np.array(found)[:, 0], logged, answers):
        np.testing.assert_array_equal(values.view("u8"), sent.view("u8"))


def test_every_kind_of_column():
    """Whatever the model at hand takes."""
    found = request_schema.RequestSchema(Kinds(a="number", b="text", c="date"), 10)
    for name, kind in (("a", "number"), ("b", "text"), ("c", "date")):
        for value, status in VALUES[kind].items():
            body = f'{{"rows": [{{"{name}": {value}}}]}}'.encode()
            if status == 200:
                assert len(found.rows(body)) == 1
            else:
                with pytest.raises(request_schema.RefusedError):
                    found.rows(body)
    assert found.rows(b'{"rows": [{"a": true}]}') == [(1.0, None, None)]
