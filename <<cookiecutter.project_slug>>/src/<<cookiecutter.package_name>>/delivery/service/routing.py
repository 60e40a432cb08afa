"""Arms: which version answers which row.

The main version has the alias of the environment. A canary answers for a share of the entities: always
the same ones, on every replica, for the share and the versions are tags of the registered model. A
shadow scores too, for the prediction log, and answers nobody.
"""

import operator
import queue
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlflow
import msgspec
from prometheus_client import Counter

from ...experiment.column_types import Kinds
from ...experiment.errors import UserError
from .scoring import ServedVersion

WAITING = 100  # requests that may wait for the shadow


class Routes(NamedTuple):
    """The versions of an environment, by number, and the canary's share in percent."""

    main: str | None
    canary: str | None = None
    share: float = 0
    shadow: str | None = None

    def versions(self) -> list[str]:
        return [number for number in (self.main, self.canary, self.shadow) if number is not None]


def routes(client: mlflow.MlflowClient, name: str, env: str) -> Routes:
    """What the registry says; raises UserError if a tag is none of ours."""
    model = client.get_registered_model(name)
    tags, main = model.tags, model.aliases.get(env)
    (canary, _, share), shadow = (
        tags.get(f"canary_{env}", "").partition(":"),
        tags.get(f"shadow_{env}", ""),
    )
    try:
        portion = float(share or 0)
    except ValueError:
        portion = -1
    if not (canary or "0").isdecimal() or not 0 <= portion <= 100:
        raise UserError(f"tag canary_{env} of {name} must be VERSION:PERCENT: `canary --stop`")
    if not (shadow or "0").isdecimal():
        raise UserError(f"tag shadow_{env} of {name} must be a version: `canary --stop`")
    return Routes(main and str(main), canary or None, portion, shadow or None)


def set_canary(
    client: mlflow.MlflowClient, name: str, env: str, version: str | None, share: float = 0
) -> None:
    """Let a version answer for a share (percent) of the entities; None: let there be no canary."""
    _set(client, name, f"canary_{env}", version and f"{version}:{share:g}")


def set_shadow(client: mlflow.MlflowClient, name: str, env: str, version: str | None) -> None:
    _set(client, name, f"shadow_{env}", version)


def _set(client: mlflow.MlflowClient, name: str, key: str, value: str | None) -> None:
    if value is not None:
        client.set_registered_model_tag(name, key, value)
    elif key in client.get_registered_model(name).tags:
        client.delete_registered_model_tag(name, key)


def fits(other: Kinds, main: Kinds, looked_up: tuple[str, ...]) -> None:
    """UserError if a version asks for what requests to the main one do not hold."""
    for column, kind in other.items():
        if column not in looked_up and main.get(column) != kind:
            raise UserError(f"it asks for {column!r}, a {kind}, which the main version does not")


class Arm:
    """A version, where in a row its columns are, and how many rows it scored."""

    def __init__(self, served: ServedVersion, columns: Kinds, count: Counter) -> None:
        self.served, self.version, self.count = served, served.version, count
        places = [list(columns).index(column) for column in served.kinds]
        self.places = None if places == list(range(len(columns))) else places

    def rows(self, rows: list[tuple]) -> list[tuple]:
        if self.places is None:
            return rows
        return [tuple([row[place] for place in self.places]) for row in rows]

    async def answers(self, chosen: Sequence[int], rows: list[tuple]) -> list[tuple[int, int, Any]]:
        """Of each row that is chosen its number, the version and the prediction."""
        if not chosen:
            return []
        found = await self.served.score(self.rows([rows[k] for k in chosen]))
        self.count.inc(len(chosen))
        return [(k, self.version, its) for k, its in zip(chosen, found.tolist(), strict=True)]


class Split:
    """Whether a row is the canary's: by a hash of its entity, salted with the version.

    The entity is what the row has at `place` (that of `data.id`), or else at all of `places`.
    """

    def __init__(self, version: int, share: float, places: list[int], place: int | None) -> None:
        self.salt, self.below = zlib.crc32(str(version).encode()), share * 2**32 / 100
        self.all, self.place = operator.itemgetter(*places) if places else tuple, place

    def __call__(self, row: tuple) -> bool:
        entity: Any = None if self.place is None else row[self.place]
        if entity is None:
            entity = self.all(row)
        return zlib.crc32(msgspec.json.encode(entity), self.salt) < self.below


class Shadow:
    """A thread that scores what answers have been given for; too many of them are dropped first."""

    def __init__(self, arm: Arm, keep: Callable[..., Any]) -> None:
        self.arm, self.keep, self.dropped = arm, keep, 0
        self.waiting: queue.Queue = queue.Queue(WAITING)
        threading.Thread(target=self._run, daemon=True).start()

    def add(self, rows: list[tuple], **record: Any) -> None:
        try:
            self.waiting.put_nowait((rows, record))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """End the thread; what waits is dropped."""
        while not self.waiting.empty():
            self.waiting.get_nowait()
        self.waiting.put(None)

    def _run(self) -> None:
        while (taken := self.waiting.get()) is not None:
            rows, record = taken
            try:
                answers = self.arm.served.score_rows(self.arm.rows(rows)).tolist()
            except Exception:  # of the shadow alone; the log shows it as a failure
                answers = [None] * len(rows)
            scored = [(k, self.arm.version, answer) for k, answer in enumerate(answers)]
            self.keep(scored=scored, shadow=True, **record)
