"""What a release must pass where it has been rolled out: a smoke test and a load check."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pandas as pd

from ...experiment.column_types import json_rows
from ...experiment.errors import UserError
from ...experiment.evaluate import predict
from ...experiment.registry import Loaded
from ..settings import Checks
from .deployment import Release, Target


def request(rows: pd.DataFrame) -> bytes:
    """A request to predict these rows."""
    return b'{"rows": [' + b", ".join(json_rows(rows)) + b"]}"


def requests(rows: pd.DataFrame) -> list[bytes]:
    """A request for each row."""
    return [b'{"rows": [' + row + b"]}" for row in json_rows(rows)]


def _client(target: Target) -> httpx.Client:
    headers = {"Content-Type": "application/json", "X-Check": target.check}
    if token := os.environ.get("SERVICE_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    return httpx.Client(base_url=target.url, timeout=30, headers=headers)


def smoke(target: Target, release: Release, loaded: Loaded, rows: pd.DataFrame) -> str:
    """The release answers, the golden rows score as in batch to 1e-9, and bad input gets a 422.

    Returns the result in words; raises UserError if one of these fails.
    """
    try:
        with _client(target) as client:
            ready = client.get("/ready").raise_for_status().json()
            answer = client.post("/predict", content=request(rows)).raise_for_status().json()
            refused = client.post("/predict", json={"rows": [{"no such column": 1}]}).status_code
        online = np.array(answer["predictions"], dtype=float)
        if (ready["image"], str(ready["version"])) != release:
            raise UserError(f"smoke test: {target.url} answers as {ready}, not as {release}")
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise UserError(f"smoke test: {error}") from None
    batch = predict(loaded.model, rows)
    if online.shape != batch.shape or not np.allclose(online, batch, rtol=0, atol=1e-9):
        raise UserError("smoke test: online and batch predictions differ")
    if refused != 422:
        raise UserError(f"smoke test: a bad request got {refused}, not 422")
    return f"smoke test: {len(rows)} rows as in batch, a bad request is refused"


def load(target: Target, rows: pd.DataFrame, limits: Checks) -> str:
    """Send `requests` requests of one row each over `connections` connections.

    Returns what was measured, in words; raises UserError if it exceeds the limits.
    """
    bodies = requests(rows)

    def send(count: int) -> tuple[list[float], int]:
        """The milliseconds of each request over one connection, and how many failed."""
        milliseconds = []
        failed = 0
        with _client(target) as client:
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
