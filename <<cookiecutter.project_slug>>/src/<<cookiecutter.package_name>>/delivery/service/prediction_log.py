"""The prediction log: a table with each prediction, and a journal on the local disk before it.

A request is appended to the journal and answered; a thread ships the journal to the table in the database of
PREDICTION_LOG_URL. So a request never waits for the database, and nothing is lost when the database is
away or the process is killed: the files stay, and are shipped later.
"""

import contextlib
import itertools
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sql

from ...continuous_training.features.online import database

if sys.platform != "win32":  # where no service runs, but what it has logged is read
    import fcntl

ROTATE_SECONDS = 0.5  # that a file of the journal grows before it is shipped
RETRY_SECONDS = 2.0  # until a database that is away is tried again
CLOSE_SECONDS = 10.0  # that the end waits for a database that does not answer
TRANSACTION_ROWS = 2000  # about
STATEMENT_ROWS = 250

log = logging.getLogger(__name__)


def create_table(table: sql.Table, engine: sql.Engine) -> None:
    """Create a table if it is not there."""
    try:
        table.metadata.create_all(engine)
    except sql.exc.DBAPIError:  # another process has created it meanwhile
        table.metadata.create_all(engine)


class PredictionTable:
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
        self.created = False

    def create(self) -> None:
        """Create the table if it is not there."""
        if not self.created:
            create_table(self.table, self.engine)
            self.created = True

    def insert(self, rows: list[tuple]) -> None:
        """Add rows (values in the columns' order), all or none; rows that are there stay as they are.

        A statement has many rows: with one row each, this thread would slow the requests.
        """
        self.create()
        mark = "?" if self.engine.dialect.name == "sqlite" else "%s"
        names = ", ".join(f'"{column.name}"' for column in self.table.c)
        one = f"({', '.join([mark] * len(self.table.c))})"
        with self.engine.begin() as connection:
            for start in range(0, len(rows), STATEMENT_ROWS):
                part = rows[start : start + STATEMENT_ROWS]
                text = f"INSERT INTO predictions ({names}) VALUES {', '.join([one] * len(part))}"  # noqa: S608
                values = tuple(itertools.chain.from_iterable(part))
                connection.exec_driver_sql(f"{text} ON CONFLICT DO NOTHING", values)


class RequestBody(msgspec.Struct):
    """The body of a request; its rows stay JSON."""

    rows: list[msgspec.Raw]


class JournalLine(msgspec.Struct):
    """A request and its scores, in a line of a journal file."""

    request: str
    time: float
    seconds: float
    shadow: bool
    asked: RequestBody
    scored: list[tuple[int, int, msgspec.Raw]]
    looked_up: list[msgspec.Raw] | None

    def rows(self, environment: str) -> list[tuple]:
        """The rows of the prediction table; ValueError or IndexError if the line is not a journal's."""
        same = (self.time, self.seconds, environment, self.shadow)
        looked_up = self.looked_up or [msgspec.Raw(b"{}")] * len(self.asked.rows)
        rows = []
        for k, version, answer in self.scored:
            features = _joined(self.asked.rows[k], looked_up[k])
            prediction = None if bytes(answer) == b"null" else str(answer, "utf-8")
            rows.append((self.request, k, version, *same, features, prediction))
        return rows


LINES = msgspec.json.Decoder(JournalLine)


def _joined(given: msgspec.Raw, looked_up: msgspec.Raw) -> str:
    """Two objects in JSON as one; they have no key in common. ValueError if they are no objects."""
    own, more = str(given, "utf-8").rstrip(), str(looked_up, "utf-8")
    if not (own.startswith("{") and more.startswith("{")):
        raise ValueError("a row is an object")
    own = own[:-1].rstrip()
    return own + ("" if own.endswith("{") or more == "{}" else ", ") + more[1:]


class Journal:
    """Files in a folder, each locked by the process that writes it; a thread ships the others to the table.

    The OS frees the lock of a dead process; then another process ships its file.
    """

    def __init__(
        self, folder: Path, table: PredictionTable, environment: str, max_bytes: int
    ) -> None:
        self.folder, self.table = folder, table
        self.environment, self.max_bytes = environment, max_bytes
        self.dropped = 0  # requests
        self.rejected = 0  # rows
        self.lock, self.stop = threading.Lock(), threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self.size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))  # bytes
        self._open_next()
        self.thread = threading.Thread(target=self._ship_until_stopped, daemon=True)
        self.thread.start()

    def _open_next(self) -> None:
        path = self.folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        self.path, self.file, self.empty = path, file, True

    def add(self, body: bytes, scores: list[tuple[int, int, Any]], **record: Any) -> None:
        """Append a request's body and its scores: for each row its number, a version, a prediction.

        `record` has request, time, seconds, shadow, and `looked_up`: each row's features from the
        online store, or None. A request that has no room is dropped and counted.
        """
        record |= {"asked": msgspec.Raw(body), "scored": scores}
        line = b"\n" + msgspec.json.encode(record).replace(b"\n", b" ")
        with self.lock:
            if self.size + len(line) > self.max_bytes:
                self.dropped += 1
                return
            written, reason = 0, "the disk is full"
            try:
                written = os.write(self.file, line)
            except OSError as error:
                reason = str(error.strerror)
            if written:
                self.size, self.empty = self.size + written, False
            if written < len(line):  # the request is answered all the same
                self.dropped += 1
                log.error("the prediction log cannot be written: %s", reason)

    def close(self) -> None:
        """Ship all files, if the database answers, and end."""
        self.stop.set()
        self.thread.join(CLOSE_SECONDS)
        with self.lock:
            os.close(self.file)
            if self.empty:
                self.path.unlink(missing_ok=True)

    def _ship_until_stopped(self) -> None:
        last = False
        while not last:
            last = self.stop.wait(ROTATE_SECONDS)
            try:
                with self.lock:
                    if not self.empty:
                        written = self.file
                        self._open_next()
                        os.close(written)  # and with it the lock
                for path in sorted(self.folder.glob("*.jsonl")):
                    self._ship(path)
            except Exception as error:  # no database, or no room on the disk: try again
                log.warning("the prediction log waits: %s", error.__cause__ or error)
                last = last or self.stop.wait(RETRY_SECONDS)

    def _ship(self, path: Path) -> None:
        """Move a file into the table, unless another process writes or ships it."""
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
                # An empty line, one that was cut off with the power, or one that another program wrote.
                with contextlib.suppress(ValueError, IndexError, RecursionError):
                    rows += LINES.decode(line).rows(self.environment)
                if len(rows) >= TRANSACTION_ROWS:
                    self._insert(rows)
                    rows = []
            if rows:
                self._insert(rows)
            path.unlink(missing_ok=True)
        with self.lock:
            self.size = max(0, self.size - size)

    def _insert(self, rows: list[tuple]) -> None:
        """Add rows; a row that the database will never take goes into a file, or it would block the rest."""
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
