"""Requests to the service of production, with rows of a table: `traffic.py PACKAGE PORT FILE [SECONDS]`.

Each holds 20 rows, in their order, without the target. Prints how many rows were answered; exits 1 if
a request failed. Without SECONDS each row is sent once, else they go round until then.
"""

import importlib
import itertools
import sys
import time
from pathlib import Path

import httpx

if __name__ == "__main__":
    package, port, file, *seconds = sys.argv[1:]
    tables, checks, params = (
        importlib.import_module(f"{package}.{name}")
        for name in ("experiment.tables", "delivery.release.checks", "experiment.params")
    )
    url, settings = f"http://127.0.0.1:{port}", params.load().data
    with httpx.Client(base_url=url, timeout=30) as client:
        takes = client.get("/model").raise_for_status().json()["inputs"]
        takes = [*takes, *([settings.id] if settings.id else [])]
        rows = tables.read([Path(file)], settings)
        rows = rows[[column for column in takes if column in rows]]
        parts = [rows.iloc[start : start + 20] for start in range(0, len(rows), 20)]
        bodies = [checks.request(part) for part in parts]
        end = time.monotonic() + float(*seconds) if seconds else None
        answered = 0
        for body in itertools.cycle(bodies) if end else bodies:
            if end and time.monotonic() > end:
                break
            headers = {"Content-Type": "application/json"}
            answer = client.post("/predict", content=body, headers=headers).raise_for_status()
            answered += len(answer.json()["predictions"])
    print(answered)
