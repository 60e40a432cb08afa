"""Routing: which version answers which row.

The main version has the alias of the environment. A canary answers for a share of the entities: always
the same ones, on every replica, for the share and the versions are tags of the registered model. A
shadow scores the same rows for the prediction log, and answers no request.
"""

import operator
import queue
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlflow
import msgspec
from prometheus_client import Counter

from ...experiment.column_types import Kinds
from ...experiment.errors import UserError
from .scoring import ServedVersion

SHADOW_QUEUE = 100  # requests that may wait for the shadow; more are dropped

# A row's number in the request, a version, and its prediction (None: it failed).
RowScore = tuple[int, int, Any]


class Routes(NamedTuple):
    """The versions of an environment, by number, and the canary's share in percent."""

    main: str | None
    canary: str | None = None
    share: float = 0
    shadow: str | None = None

    def versions(self) -> list[str]:
        """Those that there are."""
        return [number for number in (self.main, self.canary, self.shadow) if number is not None]


def read_routes(client: mlflow.MlflowClient, name: str, env: str) -> Routes:
    """The routes in the registry, without a canary whose time is over.

    Raises UserError if a tag has another form than `set_canary` gives it.
    """
    model = client.get_registered_model(name)
    main, shadow = model.aliases.get(env), model.tags.get(f"shadow_{env}", "")
    canary, _, percent = model.tags.get(f"canary_{env}", "").partition(":")
    try:
        share = float(percent or 0)
        until = float(model.tags.get(f"canary_until_{env}", "inf"))
    except ValueError:
        share = until = -1
    if not (canary or "0").isdecimal() or not 0 <= share <= 100:
        raise UserError(f"tag canary_{env} of {name} must be VERSION:PERCENT: `canary --stop`")
    if not (shadow or "0").isdecimal():
        raise UserError(f"tag shadow_{env} of {name} must be a version: `canary --stop`")
    if until < time.time():
        canary, share = "", 0
    return Routes(main and str(main), canary or None, share, shadow or None)


def set_canary(
    client: mlflow.MlflowClient,
    name: str,
    env: str,
    version: str | None,
    share: float = 0,
    seconds: float | None = None,
) -> None:
    """Let a version answer for a share (percent) of the entities; None ends the canary.

    After so many seconds it ends by itself, should whoever watches it be killed.
    """
    until = None if seconds is None else f"{time.time() + seconds:.0f}"  # since 1970
    _set(client, name, f"canary_until_{env}", until)  # first: an old one would end this canary
    _set(client, name, f"canary_{env}", version and f"{version}:{share:g}")


def set_shadow(client: mlflow.MlflowClient, name: str, env: str, version: str | None) -> None:
    """Let a version score without answering; None ends the shadow."""
    _set(client, name, f"shadow_{env}", version)


def _set(client: mlflow.MlflowClient, name: str, key: str, value: str | None) -> None:
    if value is not None:
        client.set_registered_model_tag(name, key, value)
    elif key in client.get_registered_model(name).tags:
        client.delete_registered_model_tag(name, key)


def check_inputs(other: Kinds, main: Kinds, looked_up: tuple[str, ...]) -> None:
    """UserError if a version asks for what requests to the main one do not hold."""
    for column, kind in other.items():
        if column not in looked_up and main.get(column) != kind:
            raise UserError(f"it asks for {column!r}, a {kind}, which the main version does not")


class VersionScorer:
    """A version, where its inputs are in a row, and a counter of the rows that it scored."""

    def __init__(self, served: ServedVersion, columns: Kinds, scored: Counter) -> None:
        self.served, self.version, self.scored = served, served.version, scored
        places = [list(columns).index(column) for column in served.kinds]
        self.places = None if places == list(range(len(columns))) else places

    def inputs(self, rows: list[tuple]) -> list[tuple]:
        """The rows with the version's own columns, in its order."""
        if self.places is None:
            return rows
        return [tuple([row[place] for place in self.places]) for row in rows]

    async def score(self, chosen: Sequence[int], rows: list[tuple]) -> list[RowScore]:
        """The scores of the rows with these numbers."""
        if not chosen:
            return []
        scores = await self.served.score(self.inputs([rows[k] for k in chosen]))
        self.scored.inc(len(chosen))
        return [(k, self.version, score) for k, score in zip(chosen, scores.tolist(), strict=True)]


class CanarySplit:
    """Whether a row is the canary's: by a hash of its entity, salted with the version.

    The entity is the value at `id_place` (that of `data.id`), or else those at all of `places`.
    """

    def __init__(self, version: int, share: float, places: list[int], id_place: int | None) -> None:
        self.salt, self.below = zlib.crc32(str(version).encode()), share * 2**32 / 100
        self.values = operator.itemgetter(*places) if places else tuple
        self.id_place = id_place

    def __call__(self, row: tuple) -> bool:
        entity: Any = None if self.id_place is None else row[self.id_place]
        if entity is None:
            entity = self.values(row)
        return zlib.crc32(msgspec.json.encode(entity), self.salt) < self.below


class Shadow:
    """A thread that scores rows that have been answered; it drops requests that it has no time for."""

    def __init__(self, scorer: VersionScorer, keep: Callable[..., Any]) -> None:
        self.scorer, self.keep, self.dropped = scorer, keep, 0
        self.queue: queue.Queue = queue.Queue(SHADOW_QUEUE)
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, rows: list[tuple], **record: Any) -> None:
        """Let rows be scored, and kept with this record."""
        try:
            self.queue.put_nowait((rows, record))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """End the thread; requests that wait are dropped."""
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put(None)

    def _run(self) -> None:
        scorer = self.scorer
        while (request := self.queue.get()) is not None:
            rows, record = request
            try:
                scores = scorer.served.score_rows(scorer.inputs(rows)).tolist()
            except Exception:  # the prediction log shows it as a failure of the shadow
                scores = [None] * len(rows)
            scored = [(k, scorer.version, score) for k, score in enumerate(scores)]
            self.keep(scores=scored, shadow=True, **record)
