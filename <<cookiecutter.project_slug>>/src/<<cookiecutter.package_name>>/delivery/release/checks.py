"""What a release must pass where it has been rolled out: a smoke test and a load check."""

import os
import statistics
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
    """The release answers, the golden rows get what batch scoring gives them, bad input gets a 422.

    Returns what was found, in words; raises UserError.
    """
    try:
        with _client(target) as client:
            now = client.get("/ready").raise_for_status().json()
            answer = client.post("/predict", content=request(rows)).raise_for_status().json()
            refused = client.post("/predict", json={"rows": [{"no such column": 1}]}).status_code
        online = np.array(answer["predictions"], dtype=float)
        if (now["image"], str(now["version"])) != release:
            raise UserError(f"smoke test: {target.url} answers as {now}, not as {release}")
    except (httpx.HTTPError, KeyError, ValueError) as error:
        raise UserError(f"smoke test: {error}") from None
    batch = predict(loaded.model, rows)
    if online.shape != batch.shape or not np.allclose(online, batch, rtol=0, atol=1e-9):
        raise UserError("smoke test: online and batch predictions differ")
    if refused != 422:
        raise UserError(f"smoke test: a bad request got {refused}, not 422")
    return f"smoke test: {len(rows)} rows as in batch, a bad request is refused"


def load(target: Target, rows: pd.DataFrame, limits: Checks) -> str:
    """So many requests of one row each, over some connections, within the limits.

    Returns what was measured, in words; raises UserError.
    """
    bodies = requests(rows)

    def some(count: int) -> tuple[list[float], int]:
        taken, failed = [], 0
        with _client(target) as client:
            for k in range(count):
                start = time.perf_counter()
                try:
                    ok = client.post("/predict", content=bodies[k % len(bodies)]).is_success
                except httpx.HTTPError:
                    ok = False
                failed += not ok
                taken.append((time.perf_counter() - start) * 1000)
        return taken, failed

    each = -(-limits.requests // limits.connections)
    with ThreadPoolExecutor(limits.connections) as pool:
        found = list(pool.map(some, [each] * limits.connections))
    taken = [value for values, _ in found for value in values]
    share = sum(failed for _, failed in found) / len(taken)
    p99 = statistics.quantiles(taken, n=100)[98] if len(taken) > 1 else taken[0]
    said = f"load check: {len(taken)} requests, p99 {p99:.0f} ms (allowed {limits.p99:g}),"
    said += f" {share:.2%} failed (allowed {limits.errors:.2%})"
    if p99 > limits.p99 or share > limits.errors:
        raise UserError(said)
    return said
