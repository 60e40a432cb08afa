"""Alerts: opened once, told once a channel, closed when the condition ends; they may open again.

Their state is the table `alerts` of the prediction log's database. Whoever tells a channel claims the
alert first, and confirms it afterwards: two monitors at once tell it once, and what is not confirmed
within LEASE, for somebody was killed, is offered again. So nothing is lost, and a channel hears twice
only of what it heard from one who did not live to say so.
"""

import logging
import os
from typing import Any, NamedTuple

import httpx
import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite

from ..service.prediction_log import create_table

CHANNELS = ("webhook", "issue", "retrain")
LEASE = 45 * 60  # seconds; longer than a run of the workflow takes from claim to confirmation

log = logging.getLogger(__name__)


class Key(NamedTuple):
    """What an alert is about; version 0 is none."""

    name: str
    version: int = 0
    segment: str = ""


class Alert(NamedTuple):
    key: Key
    message: str
    opened: float  # seconds since 1970


# Whether a condition holds; None: it cannot be told, and an alert stays as it is.
Conditions = dict[Key, tuple[bool | None, str]]


class Alerts:
    """Those of an environment, at a moment (seconds since 1970)."""

    def __init__(self, engine: sql.Engine, environment: str, now: float) -> None:
        self.engine, self.environment, self.now = engine, environment, round(now, 3)
        moments = [f"{channel}_{part}" for channel in CHANNELS for part in ("claimed", "sent")]
        self.table = sql.Table(
            "alerts",
            sql.MetaData(),
            sql.Column("environment", sql.String, primary_key=True),
            sql.Column("name", sql.String, primary_key=True),
            sql.Column("version", sql.Integer, primary_key=True),
            sql.Column("segment", sql.String, primary_key=True),
            sql.Column("message", sql.String, nullable=False),
            sql.Column("opened", sql.Double, nullable=False),
            *(sql.Column(name, sql.Double) for name in ("closed", *moments)),
        )
        create_table(self.table, engine)
        self.own = self.table.c
        self.anew = dict.fromkeys(["closed", *moments]) | {"opened": self.now}
        self.mine = sql.and_(self.own.environment == environment, self.own.closed.is_(None))

    def _at(self, key: Key) -> Any:
        same = [self.own[name] == value for name, value in key._asdict().items()]
        return sql.and_(self.own.environment == self.environment, *same)

    def open(self) -> list[Alert]:
        query = sql.select(self.table).where(self.mine).order_by(self.own.opened, self.own.name)
        with self.engine.connect() as connection:
            return [
                Alert(Key(row.name, row.version, row.segment), row.message, row.opened)
                for row in connection.execute(query)
            ]

    def update(self, conditions: Conditions) -> set[Key]:
        """Open what holds, close what does not; returns what this call opened."""
        new = set()
        dialect = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        for key, (holds, message) in conditions.items():
            if not holds:
                continue
            message = " ".join(message.split())  # a segment's name may be anything
            row = {"environment": self.environment, "message": message, **key._asdict()}
            insert = dialect.insert(self.table).values(row | self.anew).on_conflict_do_nothing()
            closed = self.table.update().where(self._at(key), self.own.closed.is_not(None))
            with self.engine.begin() as connection:
                if (
                    connection.execute(insert).rowcount == 1
                    or connection.execute(closed.values(self.anew)).rowcount == 1
                ):
                    new.add(key)
                where = self.table.update().where(self._at(key))
                connection.execute(where.values(message=message))
        for alert in self.open():
            if conditions.get(alert.key, (False, ""))[0] is False:
                self._set([alert.key], closed=self.now)
        return new

    def _set(self, keys: list[Key], **values: float | None) -> None:
        with self.engine.begin() as connection:
            for key in keys:
                connection.execute(self.table.update().where(self._at(key)).values(**values))

    def _free(self, channel: str) -> Any:
        """Open, and neither told to the channel nor claimed by one who may still do it."""
        claimed, sent = self.own[f"{channel}_claimed"], self.own[f"{channel}_sent"]
        late = sql.or_(claimed.is_(None), claimed < self.now - LEASE)
        return sql.and_(self.mine, sent.is_(None), late)

    def untold(self, channel: str) -> list[Key]:
        """What the channel has not been told, and nobody is about to tell."""
        query = sql.select(self.own.name, self.own.version, self.own.segment)
        with self.engine.connect() as connection:
            return [Key(*row) for row in connection.execute(query.where(self._free(channel)))]

    def claim(self, channel: str, keys: list[Key]) -> list[Key]:
        """Those of the alerts that the caller is to tell, and nobody else."""
        claimed = []
        for key in keys:
            mine = self.table.update().where(self._at(key), self._free(channel))
            with self.engine.begin() as connection:
                values = {f"{channel}_claimed": self.now}
                if connection.execute(mine.values(**values)).rowcount == 1:
                    claimed.append(key)
        return claimed

    def confirm(self, channel: str, claim: float) -> int:
        """What was claimed at that moment has been told; returns how many alerts that were."""
        where = self.table.update().where(self.own.environment == self.environment)
        where = where.where(self.own[f"{channel}_claimed"] == claim)
        with self.engine.begin() as connection:
            return connection.execute(where.values(**{f"{channel}_sent": self.now})).rowcount

    def release(self, channel: str, keys: list[Key]) -> None:
        """They could not be told: somebody else may try."""
        self._set(keys, **{f"{channel}_claimed": None})

    def post(self, alerts: list[Alert]) -> None:
        """Tell the webhook ALERT_WEBHOOK, if there is one; what fails is tried at the next run."""
        url = os.environ.get("ALERT_WEBHOOK")
        if not url:
            return
        for alert in alerts:
            if not self.claim("webhook", [alert.key]):
                continue
            text = f"{self.environment}: {alert.key.name}: {alert.message}"
            content = {"text": text, "environment": self.environment, **alert.key._asdict()}
            content |= {"message": alert.message, "since": alert.opened}
            try:
                httpx.post(url, json=content, timeout=5).raise_for_status()
            except (httpx.HTTPError, httpx.InvalidURL) as error:  # whose text may hold the address
                self.release("webhook", [alert.key])
                log.warning("webhook: %s; it is tried again next time", type(error).__name__)
            else:
                self._set([alert.key], webhook_sent=self.now)
