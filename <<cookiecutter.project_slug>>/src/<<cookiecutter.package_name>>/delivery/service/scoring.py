"""A version of the model that is ready to answer: loaded, checked, and scored in the fastest way it allows.

There are three ways. "arrays": the default form of model.py with the stock `derive` of features.py (fast.py).
"DataFrame and arrays": the same form with a `derive` of the owner's. "DataFrame": any other model, scored by
scikit-learn. A call with a DataFrame costs hardly more for many rows than for one, so requests that
arrive during a call are scored together in the next one.
"""

import asyncio
import json
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from ...experiment.column_types import canonical
from ...experiment.errors import UserError
from ...experiment.evaluate import predict
from ...experiment.params import Params
from ...experiment.registry import Loaded, download, read_model
from .request_schema import frame

INLINE_ROWS = 200  # a request with more rows is scored in a thread, not on the event loop


def load_with_golden(
    version: ModelVersion, params: Params, files: Path | None = None
) -> tuple[Loaded, pd.DataFrame]:
    """A model, and the golden rows (n, inputs): those that training kept with it as an example of its input.

    `files` is the folder that holds them, if they have been downloaded; UserError as in `load_model`.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = files or download(version, Path(folder))
        loaded = read_model(files, params, f"models:/{version.name}/{version.version}")
        given = json.loads((files / "input_example.json").read_text(encoding="utf-8"))
    return loaded, canonical(pd.DataFrame(given["data"], columns=given["columns"]), loaded.kinds)


class ServedVersion:
    """A version of the model, loaded and checked; raises UserError if it may not serve."""

    def __init__(self, version: ModelVersion, params: Params, files: Path | None = None) -> None:
        self.version = int(version.version)
        self.lineage = {key: version.tags.get(key) for key in ("commit", "data", "trigger")}
        self.loaded, example = load_with_golden(version, params, files)
        self.kinds = self.loaded.kinds
        if not np.isfinite(predict(self.loaded.model, example)).all():
            raise UserError(f"version {version.version} is refused: its answers are no numbers")
        self.fast, self.slow_because = _fast(self.loaded, example)
        self.batcher = MicroBatcher(self.score_rows)

    def way(self) -> dict[str, str | None]:
        """How rows are scored, and why not faster."""
        if self.fast is None:
            return {"way": "DataFrame", "because": self.slow_because}
        if self.fast.on_arrays:
            return {"way": "arrays", "because": None}
        return {"way": "DataFrame and arrays", "because": "derive of features.py is your own"}

    def score_rows(self, rows: list[tuple]) -> np.ndarray:
        """Probabilities (n, classes) or values (n,) of rows with the columns of the signature."""
        if self.fast is not None:
            return self.fast(rows)
        return predict(self.loaded.model, frame(rows, self.kinds))

    async def score(self, rows: list[tuple]) -> np.ndarray:
        """The same on the event loop: what takes long is done in a thread."""
        if self.fast is None or not self.fast.on_arrays:
            return await asyncio.wrap_future(self.batcher.submit(rows))
        if len(rows) <= INLINE_ROWS:
            return self.fast(rows)
        return await asyncio.to_thread(self.fast, rows)


def _fast(loaded: Loaded, example: pd.DataFrame) -> tuple[Any, str | None]:
    """The fast scorer, or why there is none."""
    try:
        from . import fast
    except ImportError:
        return None, "there is no fast.py"
    try:
        return fast.checked(loaded.model, example), None
    except Exception as error:  # it reads what is private in scikit-learn, and may change
        return None, f"{error}"


class MicroBatcher:
    """A thread that scores all requests that wait, together in one call."""

    def __init__(self, score_rows: Callable[[list[tuple]], np.ndarray]) -> None:
        self.score_rows = score_rows
        self.waiting: list[tuple[list[tuple], Future]] = []
        self.arrived = threading.Condition()
        self.clients = 1  # that had a request in the last call, or waited at its end
        self.last_seconds = 0.0  # that the last call took
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, rows: list[tuple]) -> Future:
        """The future scores of these rows."""
        scores: Future = Future()
        with self.arrived:
            self.waiting.append((rows, scores))
            self.arrived.notify()
        return scores

    def close(self) -> None:
        """End the thread when it has answered all requests that wait."""
        self.submit([])

    def _run(self) -> None:
        closed = False
        while not closed:
            with self.arrived:
                self.arrived.wait_for(lambda: self.waiting)
                if self.clients > 1:  # they ask again in a moment; one client would wait in vain
                    together = lambda: len(self.waiting) >= self.clients  # noqa: E731
                    self.arrived.wait_for(together, self.last_seconds / 4)
                requests, self.waiting = self.waiting, []
            start = time.perf_counter()
            closed = any(not rows for rows, _ in requests)
            self._answer([(rows, scores) for rows, scores in requests if rows])
            self.last_seconds = time.perf_counter() - start
            self.clients = len(requests) + len(self.waiting)

    def _answer(self, requests: list[tuple[list[tuple], Future]]) -> None:
        if not requests:
            return
        try:
            scored = self.score_rows([row for rows, _ in requests for row in rows])
        except Exception as error:
            if len(requests) == 1:
                requests[0][1].set_exception(error)
                return
            for request in requests:  # a request that cannot be scored must not fail another one
                self._answer([request])
            return
        start = 0
        for rows, scores in requests:
            scores.set_result(scored[start : start + len(rows)])
            start += len(rows)
