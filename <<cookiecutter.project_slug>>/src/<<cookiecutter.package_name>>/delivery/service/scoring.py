"""A model that is ready to answer: checked, and scored the fast way if there is one for its form.

Any scikit-learn model is scored through DataFrames; requests that wait meanwhile go into one call, which
costs hardly more than one row. The default form of model.py has a way without DataFrames (fast.py).
"""

import asyncio
import json
import logging
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion

from ...experiment.column_types import Kinds, canonical
from ...experiment.errors import UserError
from ...experiment.evaluate import predict
from ...experiment.params import Params
from ...experiment.registry import Loaded, load_model

TYPES = {"number": "float64", "date": "datetime64[us]", "empty": "float64"}
INLINE = 200  # rows that the fast way scores on the event loop; more go to a thread

log = logging.getLogger(__name__)


def golden(version: ModelVersion, loaded: Loaded) -> pd.DataFrame:
    """The rows (n, inputs) that training kept with the model as an example of its input."""
    uri = f"models:/{version.name}/{version.version}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
        given = json.loads((path / "input_example.json").read_text(encoding="utf-8"))
    return canonical(pd.DataFrame(given["data"], columns=given["columns"]), loaded.kinds)


class Served:
    """A version of the model, loaded and checked; raises UserError if it may not serve."""

    def __init__(self, version: ModelVersion, params: Params) -> None:
        self.version = int(version.version)
        self.facts = {key: version.tags.get(key) for key in ("commit", "data", "trigger")}
        self.loaded: Loaded = load_model(version, params)
        self.kinds = self.loaded.kinds
        example = golden(version, self.loaded)
        if not np.isfinite(predict(self.loaded.model, example)).all():
            raise UserError(f"version {version.version} is refused: its answers are no numbers")
        self.fast, self.why = _fast(self.loaded, example)
        self.gather = Gather(self.loaded)

    async def score(self, rows: list[tuple]) -> np.ndarray:
        """Probabilities (n, classes) or values (n,) of rows with the columns of the signature."""
        if self.fast is None:
            return await asyncio.wrap_future(self.gather.submit(rows))
        if len(rows) <= INLINE:
            return self.fast(rows)
        return await asyncio.to_thread(self.fast, rows)

    def score_now(self, rows: list[tuple]) -> np.ndarray:
        """The same, for a thread that may wait."""
        return self.gather.submit(rows).result() if self.fast is None else self.fast(rows)


def _fast(loaded: Loaded, example: pd.DataFrame) -> tuple[Any, str]:
    """The fast scorer, or why there is none."""
    try:
        from . import fast
    except ImportError:
        return None, "there is no fast.py"
    try:
        return fast.checked(loaded.model, example), "the default form"
    except Exception as error:  # it reads what is private in scikit-learn, and may change
        return None, f"{error}"


def frame(rows: list[tuple], kinds: Kinds) -> pd.DataFrame:
    """The rows (n, columns of these kinds) in canonical form."""
    columns = zip(kinds.items(), zip(*rows, strict=True), strict=True)
    return pd.DataFrame(
        {
            name: pd.array(list(values), "str") if kind == "text" else np.array(values, TYPES[kind])
            for (name, kind), values in columns
        }
    )


class Gather:
    """One thread that scores all rows which wait, together."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.waiting: list[tuple[list[tuple], Future]] = []
        self.some = threading.Condition()
        self.busy, self.took = 1, 0.0  # requests in the last call, and its seconds
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, rows: list[tuple]) -> Future:
        answer: Future = Future()
        with self.some:
            self.waiting.append((rows, answer))
            self.some.notify()
        return answer

    def close(self) -> None:
        """End the thread once all that waits is answered."""
        self.submit([])

    def _run(self) -> None:
        while True:
            with self.some:
                self.some.wait_for(lambda: self.waiting)
                if self.busy > 1:  # others will be here in a moment; one client would wait in vain
                    self.some.wait_for(lambda: len(self.waiting) >= self.busy, self.took / 4)
                taken, self.waiting = self.waiting, []
            start = time.perf_counter()
            self._answer(taken)
            self.busy, self.took = len(taken), time.perf_counter() - start
            if any(not rows for rows, _ in taken):
                return

    def _answer(self, taken: list[tuple[list[tuple], Future]]) -> None:
        try:
            found = self._score([row for rows, _ in taken for row in rows])
        except Exception as error:
            if len(taken) == 1:
                taken[0][1].set_exception(error)
                return
            for one in taken:  # what one client sends must not fail another one's request
                self._answer([one])
            return
        start = 0
        for rows, answer in taken:
            answer.set_result(found[start : start + len(rows)])
            start += len(rows)

    def _score(self, rows: list[tuple]) -> np.ndarray:
        if not rows:
            return np.empty(0)
        return predict(self.loaded.model, frame(rows, self.loaded.kinds))
