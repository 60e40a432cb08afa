"""The prediction log: each prediction in a database, by way of a journal on the local disk.

A request is appended to the journal and answered; a thread carries the journal to the database of
PREDICTION_LOG_URL. So a request never waits for the database, and nothing is lost when that is away or
the process is killed: what is there is carried when it comes back. One process has one folder.
"""

import fcntl
import itertools
import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sql

from ...continuous_training.features.online import database

ROTATE = 0.5  # seconds that a file of the journal grows before it is carried
PAUSE = 2.0  # seconds until a database that is away is tried again
BATCH, PART = 2000, 250  # rows in a transaction, in a statement
CLOSE = 10.0  # seconds that the end waits for a database that is there and does not answer

log = logging.getLogger(__name__)


def make(table: sql.Table, engine: sql.Engine) -> None:
    """Make a table that is not there yet."""
    try:
        table.metadata.create_all(engine)
    except sql.exc.DBAPIError:  # another one has made it meanwhile
        table.metadata.create_all(engine)


class Table:
    """The table `predictions`: a row a prediction, in SQLite or PostgreSQL."""

    def __init__(self, url: str) -> None:
        self.engine = database(url)
        self.table = sql.Table(
            "predictions",
            sql.MetaData(),
            sql.Column("request", sql.String, primary_key=True),
            sql.Column("row", sql.Integer, primary_key=True),
            sql.Column("version", sql.Integer, primary_key=True),
            sql.Column("time", sql.Double, nullable=False, index=True),  # seconds since 1970, UTC
            sql.Column("seconds", sql.Double, nullable=False),  # that the request took
            sql.Column("environment", sql.String, nullable=False),
            sql.Column("shadow", sql.Boolean, nullable=False),  # scored without answering
            sql.Column("features", sql.String, nullable=False),  # JSON, those looked up too
            sql.Column("prediction", sql.String),  # JSON; null: it failed, another version answered
            sqlite_with_rowid=False,
        )
        self.made = False

    def make(self) -> None:
        """Create the table if it is not there."""
        if not self.made:
            make(self.table, self.engine)
            self.made = True

    def insert(self, rows: list[tuple]) -> None:
        """Add rows (values in the columns' order), all or none; those that are there stay so.

        Many in a statement: a thread that works on each would keep the requests from theirs.
        """
        self.make()
        mark = "?" if self.engine.dialect.name == "sqlite" else "%s"
        names = ", ".join(f'"{column.name}"' for column in self.table.c)
        one = f"({', '.join([mark] * len(self.table.c))})"
        with self.engine.begin() as connection:
            for start in range(0, len(rows), PART):
                part = rows[start : start + PART]
                text = f"INSERT INTO predictions ({names}) VALUES {', '.join([one] * len(part))}"  # noqa: S608
                values = tuple(itertools.chain.from_iterable(part))
                connection.exec_driver_sql(f"{text} ON CONFLICT DO NOTHING", values)


class Journal:
    """Files in a folder, each locked by the process that writes it; a thread carries the others away.

    Who is killed leaves its file unlocked, and whoever runs next, or beside it, carries that too.
    """

    def __init__(self, folder: Path, table: Table, environment: str, limit: int) -> None:
        self.folder, self.table, self.environment, self.limit = folder, table, environment, limit
        self.dropped = self.rejected = 0
        self.lock, self.stop = threading.Lock(), threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self.size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
        self._next()
        self.thread = threading.Thread(target=self._carry, daemon=True)
        self.thread.start()

    def _next(self) -> None:
        path = self.folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        self.path, self.file, self.empty = path, file, True

    def add(self, asked: bytes, scored: list[tuple[int, int, Any]], **record: Any) -> None:
        """Append a request's body and what was `scored`: of each row its number, version, prediction.

        `record` has request, time, seconds, shadow, and `looked_up`: of each row the features found in
        the online store, if any. Beyond the limit all is dropped, and counted.
        """
        record |= {"asked": msgspec.Raw(asked), "scored": scored}
        line = b"\n" + msgspec.json.encode(record).replace(b"\n", b" ")
        with self.lock:
            if self.size + len(line) > self.limit:
                self.dropped += 1
                return
            try:
                written = os.write(self.file, line)
                said = "the disk is full"
            except OSError as error:
                written, said = 0, str(error.strerror)
            if written:
                self.size, self.empty = self.size + written, False
            if written < len(line):  # an answer is worth more than its record
                self.dropped += 1
                log.error("the prediction log cannot be written: %s", said)

    def close(self) -> None:
        """Carry what is there, if the database answers, and end."""
        self.stop.set()
        self.thread.join(CLOSE)
        with self.lock:
            os.close(self.file)
            if self.empty:
                self.path.unlink(missing_ok=True)

    def _carry(self) -> None:
        last = False
        while not last:
            last = self.stop.wait(ROTATE)
            try:
                with self.lock:
                    if not self.empty:
                        before = self.file
                        self._next()
                        os.close(before)  # and with it the lock
                for path in sorted(self.folder.glob("*.jsonl")):
                    self._take(path)
            except Exception as error:  # no database, no room on the disk: it is tried again
                log.warning("the prediction log waits: %s", error.__cause__ or error)
                last = last or self.stop.wait(PAUSE)

    def _take(self, path: Path) -> None:
        """Carry a file away, unless another process writes or carries it."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            size, rows = 0, list[tuple]()
            for line in file:
                size += len(line)
                rows += self._rows(line)
                if len(rows) >= BATCH:
                    self._insert(rows)
                    rows = []
            if rows:
                self._insert(rows)
            path.unlink(missing_ok=True)
        with self.lock:
            self.size = max(0, self.size - size)

    def _insert(self, rows: list[tuple]) -> None:
        """Add rows; those that the database will never take are set aside, or they would block the rest."""
        try:
            self.table.insert(rows)
        except (sql.exc.DataError, sql.exc.IntegrityError, OverflowError):
            if len(rows) > 1:
                half = len(rows) // 2
                self._insert(rows[:half])
                self._insert(rows[half:])
                return
            self.rejected += 1
            with (self.folder / "rejected.txt").open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[0]) + "\n")

    def _rows(self, line: bytes) -> list[tuple]:
        try:
            its = RECORD.decode(line)
            about, asked = (its.time, its.seconds, self.environment, its.shadow), its.asked.rows
            more = its.looked_up or [msgspec.Raw(b"{}")] * len(asked)
            return [
                (its.request, k, version, *about, _features(asked[k], more[k]), _text(answer))
                for k, version, answer in its.scored
            ]
        # Nothing, the end of a file that was cut off with the power, or what another one wrote.
        except (ValueError, IndexError, RecursionError):
            return []


class Asked(msgspec.Struct):
    """A request's body."""

    rows: list[msgspec.Raw]


class Record(msgspec.Struct):
    """A line of the journal; what is in JSON stays so."""

    request: str
    time: float
    seconds: float
    shadow: bool
    asked: Asked
    scored: list[tuple[int, int, msgspec.Raw]]
    looked_up: list[msgspec.Raw] | None


RECORD = msgspec.json.Decoder(Record)


def _text(value: msgspec.Raw) -> str | None:
    text = str(value, "utf-8")
    return None if text == "null" else text


def _features(asked: msgspec.Raw, looked_up: msgspec.Raw) -> str:
    """Two objects in JSON as one; they have no key in common. ValueError if they are none."""
    if not (bytes(asked).startswith(b"{") and bytes(looked_up).startswith(b"{")):
        raise ValueError("a row is an object")
    own, more = str(asked, "utf-8").rstrip()[:-1].rstrip(), str(looked_up, "utf-8")[1:]
    return own + ("" if own.endswith("{") or more == "}" else ", ") + more
