"""What a release must pass before it answers anybody: a smoke test, recent requests, a load check."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pandas as pd
import sqlalchemy as sql

from ...experiment.column_types import canonical, json_rows
from ...experiment.errors import UserError
from ...experiment.evaluate import predict
from ...experiment.redaction import redact
from ...experiment.registry import Loaded
from ..monitoring.label_join import inputs
from ..service.prediction_log import PredictionTable
from ..settings import Checks
from .deployment import Endpoint, Release

TOLERANCE = 1e-9  # between an online and a batch prediction
RECENT_ROWS = 200  # of the prediction log that are asked for again


def request(rows: pd.DataFrame) -> bytes:
    """A request to predict these rows."""
    return b'{"rows": [' + b", ".join(json_rows(rows)) + b"]}"


def requests(rows: pd.DataFrame) -> list[bytes]:
    """A request for each row."""
    return [b'{"rows": [' + row + b"]}" for row in json_rows(rows)]


def _client(endpoint: Endpoint) -> httpx.Client:
    headers = {"Content-Type": "application/json", "X-Check": endpoint.check}
    if token := os.environ.get("SERVICE_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    return httpx.Client(base_url=endpoint.url, timeout=30, headers=headers)


def smoke(endpoint: Endpoint, release: Release, loaded: Loaded, rows: pd.DataFrame) -> str:
    """The release answers, the golden rows score as in batch to 1e-9, and bad input gets a 422.

    Returns the result in words; raises UserError if one of these fails.
    """
    try:
        with _client(endpoint) as client:
            ready = client.get("/ready").raise_for_status().json()
            refused = client.post("/predict", json={"rows": [{"no such column": 1}]}).status_code
        if (ready["image"], str(ready["version"])) != release:
            raise UserError(f"smoke test: {endpoint.url} answers as {ready}, not as {release}")
        same = _as_in_batch(endpoint, loaded, rows)
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise UserError(f"smoke test: {error}") from None
    if not same:
        raise UserError("smoke test: online and batch predictions differ")
    if refused != 422:
        raise UserError(f"smoke test: a bad request got {refused}, not 422")
    return f"smoke test: {len(rows)} rows as in batch, a bad request is refused"


def recent(endpoint: Endpoint, env: str, loaded: Loaded, url: str, limit: int) -> str:
    """The newest rows that an environment's prediction log (`url`) has score as in batch to 1e-9.

    Returns the result in words, also if the log has no rows or is away; raises UserError if they differ.
    """
    table = PredictionTable(url)
    columns = table.table.c
    answered = (columns.environment == env, ~columns.shadow, columns.prediction.is_not(None))
    query = sql.select(columns.features).where(*answered).order_by(columns.time.desc())
    query = query.limit(min(RECENT_ROWS, limit))
    try:
        table.create()
        logged = pd.read_sql(query, table.engine)
    except sql.exc.SQLAlchemyError as error:
        why = redact(" ".join(str(error.__cause__ or error).split()))[:300]
        return f"recent requests: not compared, for the prediction log is away: {why}"
    if logged.empty:
        return "recent requests: none in the prediction log"
    rows = inputs(logged, loaded.kinds, None).reindex(columns=[*loaded.kinds])
    try:
        same = _as_in_batch(endpoint, loaded, canonical(rows, loaded.kinds))
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise UserError(f"recent requests: {error}") from None
    if not same:
        raise UserError("recent requests: online and batch predictions differ")
    return f"recent requests: {len(rows)} rows as in batch"


def _as_in_batch(endpoint: Endpoint, loaded: Loaded, rows: pd.DataFrame) -> bool:
    with _client(endpoint) as client:
        answer = client.post("/predict", content=request(rows)).raise_for_status().json()
    online, batch = np.array(answer["predictions"], dtype=float), predict(loaded.model, rows)
    return online.shape == batch.shape and np.allclose(online, batch, rtol=0, atol=TOLERANCE)


def load(endpoint: Endpoint, rows: pd.DataFrame, limits: Checks) -> str:
    """Send `requests` requests of one row each over `connections` connections.

    Returns what was measured, in words; raises UserError if it exceeds the limits.
    """
    bodies = requests(rows)

    def send(count: int) -> tuple[list[float], int]:
        """The milliseconds of each request over one connection, and how many failed."""
        milliseconds = []
        failed = 0
        with _client(endpoint) as client:
            for k in range(count):
                start = time.perf_counter()
                try:
                    ok = client.post("/predict", content=bodies[k % len(bodies)]).is_success
                except httpx.HTTPError:
                    ok = False
                failed += not ok
                milliseconds.append((time.perf_counter() - start) * 1000)
        return milliseconds, failed

    each = -(-limits.requests // limits.connections)
    with ThreadPoolExecutor(limits.connections) as pool:
        results = list(pool.map(send, [each] * limits.connections))
    times = [value for milliseconds, _ in results for value in milliseconds]
    share = sum(failed for _, failed in results) / len(times)
    p99 = float(np.quantile(times, 0.99))
    message = f"load check: {len(times)} requests, p99 {p99:.0f} ms (allowed {limits.p99:g}),"
    message += f" {share:.2%} failed (allowed {limits.errors:.2%})"
    if p99 > limits.p99 or share > limits.errors:
        raise UserError(message)
    return message
