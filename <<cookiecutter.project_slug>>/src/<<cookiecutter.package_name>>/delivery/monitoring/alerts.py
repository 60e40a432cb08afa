"""Alerts: opened once, closed when their condition ends; they may open again.

Their state is the table `alerts` of the prediction log's database. An alert has an `id` from when it
opens until it closes. The webhook is sent each alert at least once: again only if the monitor was killed
before it noted that the first message arrived, or if two monitors ran at once. Its receiver knows a
repeat by the `id`.
"""

import hashlib
import logging
import os
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx
import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite

from ..service.prediction_log import create_table

log = logging.getLogger(__name__)


class AlertKey(NamedTuple):
    """What an alert is about; version 0 is none."""

    name: str
    version: int = 0
    segment: str = ""


class Alert(NamedTuple):
    """An open alert of an environment."""

    environment: str
    key: AlertKey
    message: str
    opened: float  # seconds since 1970

    def content(self) -> dict[str, Any]:
        """The alert for JSON: id, name, version, segment, message, since."""
        identity = "\0".join(map(str, (self.environment, *self.key, self.opened)))
        return {
            "id": hashlib.sha256(identity.encode()).hexdigest()[:16],
            "name": self.key.name,
            "version": self.key.version or None,
            "segment": self.key.segment or None,
            "message": self.message,
            "since": datetime.fromtimestamp(self.opened, UTC).isoformat(timespec="seconds"),
        }


# Whether each alert's condition holds, and its message; None: unknown, the alert stays as it is.
Conditions = dict[AlertKey, tuple[bool | None, str]]


class AlertTable:
    """The alerts of an environment, at a moment (seconds since 1970)."""

    def __init__(self, engine: sql.Engine, environment: str, now: float) -> None:
        self.engine = engine
        self.environment = environment
        self.now = round(now, 3)
        self.table = sql.Table(
            "alerts",
            sql.MetaData(),
            sql.Column("environment", sql.String, primary_key=True),
            sql.Column("name", sql.String, primary_key=True),
            sql.Column("version", sql.Integer, primary_key=True),
            sql.Column("segment", sql.String, primary_key=True),
            sql.Column("message", sql.String, nullable=False),
            sql.Column("opened", sql.Double, nullable=False),
            sql.Column("closed", sql.Double),
            sql.Column("webhook_sent", sql.Double),
        )
        create_table(self.table, engine)

    def open(self, unsent: bool = False) -> list[Alert]:
        """The open alerts, oldest first; `unsent`: only those that the webhook has not been sent."""
        columns = self.table.c
        query = sql.select(self.table).where(
            columns.environment == self.environment, columns.closed.is_(None)
        )
        if unsent:
            query = query.where(columns.webhook_sent.is_(None))
        with self.engine.connect() as connection:
            rows = connection.execute(query.order_by(columns.opened, columns.name)).all()
        return [
            Alert(self.environment, AlertKey(r.name, r.version, r.segment), r.message, r.opened)
            for r in rows
        ]

    def update(self, conditions: Conditions) -> set[AlertKey]:
        """Open the alerts that hold, close those that do not; returns the keys that this call opened."""
        opened = set()
        for key, (holds, message) in conditions.items():
            message = " ".join(message.split())  # a segment's name may be anything
            if holds and self._open(key, message):
                opened.add(key)
            elif holds:
                self._set(key, message=message)
        for alert in self.open():
            if conditions.get(alert.key, (False, ""))[0] is False:
                self._set(alert.key, closed=self.now)
        return opened

    def _open(self, key: AlertKey, message: str) -> bool:
        """Open an alert, for the first time or again; False if it is open."""
        fresh = {"message": message, "opened": self.now, "closed": None, "webhook_sent": None}
        dialect = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        insert = dialect.insert(self.table).values(
            environment=self.environment, **key._asdict(), **fresh
        )
        insert = insert.on_conflict_do_update(
            index_elements=list(self.table.primary_key),
            set_=fresh,
            where=self.table.c.closed.is_not(None),
        )
        with self.engine.begin() as connection:
            return connection.execute(insert).rowcount == 1

    def _set(self, key: AlertKey, **values: object) -> None:
        row = {"environment": self.environment, **key._asdict()}
        same = [self.table.c[name] == value for name, value in row.items()]
        with self.engine.begin() as connection:
            connection.execute(self.table.update().where(*same).values(**values))

    def post(self) -> None:
        """Send the webhook ALERT_WEBHOOK what it has not been sent; what fails is sent by the next run."""
        url = os.environ.get("ALERT_WEBHOOK")
        for alert in self.open(unsent=True) if url else ():
            text = f"{self.environment}: {alert.key.name}: {alert.message}"
            content = {"text": text, "environment": self.environment} | alert.content()
            try:
                httpx.post(str(url), json=content, timeout=5).raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL) as error:  # whose text may hold the address
                log.warning("webhook: %s; the next run tries again", type(error).__name__)
            else:
                self._set(alert.key, webhook_sent=self.now)
