"""The prediction log: nothing that was answered is lost, whatever is killed or away."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sql

from << cookiecutter.package_name >>.delivery.service import prediction_log

AWAY = "postgresql://nobody@127.0.0.1:1/away"
ASKED, ANSWERED = b'{"rows": [{"a": 1},\n {"a": null}]}', [0.25, [0.5, 0.5]]


def add(log: prediction_log.Journal, version: int = 1, **record) -> None:
    """A request of two rows and its answer."""
    record = {"time": time.time(), "seconds": 0.001, "shadow": False, "looked_up": None} | record
    scored = [(k, version, answer) for k, answer in enumerate(ANSWERED)]
    log.add(ASKED, scored, request=uuid.uuid4().hex, **record)


WRITER = """
import sys, uuid
from pathlib import Path
from {module} import Journal, PredictionTable
log = Journal(Path({folder!r}), PredictionTable({url!r}), "dev", 10**9)
while True:
    record = dict(request=uuid.uuid4().hex, time=0.0, seconds=0.0, shadow=False, looked_up=None)
    log.add({asked!r}, [(k, 1, answer) for k, answer in enumerate({answered!r})], **record)
    print(flush=True)
"""


FULL = """
import logging, resource, time, uuid
from pathlib import Path
from {module} import Journal, PredictionTable

class Waits(logging.Handler):
    seen = False

    def emit(self, record):
        self.seen = True

def add(count):
    for _ in range(count):
        record = dict(request=uuid.uuid4().hex, time=0.0, seconds=0.0, shadow=False, looked_up=None)
        log.add({asked!r}, [(k, 1, answer) for k, answer in enumerate({answered!r})], **record)

def limit(kind, most):
    resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))

log = Journal(Path({folder!r}), PredictionTable({url!r}), "dev", 10**9)
before = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)]
log.lock.acquire()  # the file does not change meanwhile
limit(resource.RLIMIT_FSIZE, 5000)
log.lock.release()
add(50)
limit(resource.RLIMIT_FSIZE, before[0])
dropped = log.dropped
add(50)
limit(resource.RLIMIT_NOFILE, 3)
logging.getLogger().addHandler(waits := Waits())
add(50)
while not waits.seen:  # the thread opens no other file
    time.sleep(0.01)
add(50)
limit(resource.RLIMIT_NOFILE, before[1])
add(50)
assert log.thread.is_alive() and log.dropped == dropped
while log.size:  # until all is carried
    time.sleep(0.01)
log.close()
print(250, dropped)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'predictions.db'}"


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., prediction_log.Journal]:
    def make(url: str, limit: int = 10**9) -> prediction_log.Journal:
        table = prediction_log.PredictionTable(url)
        return prediction_log.Journal(tmp_path / "journal", table, "dev", limit)

    return make


def rows(url: str) -> list[tuple]:
    table = prediction_log.PredictionTable(url).table
    with sql.create_engine(url).connect() as connection:
        return [tuple(row) for row in connection.execute(sql.select(table).order_by(table.c.time))]


def kept(url: str) -> bool:
    """Whether the database has any row yet."""
    engine = sql.create_engine(url)
    return sql.inspect(engine).has_table("predictions") and bool(rows(url))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_prediction_is_a_row(opened, url, tmp_path):
    log, before = opened(url), time.time()
    add(log, 7)
    log.close()
    (request, first, version, when, _, environment, shadow, *values), second = rows(url)
    assert (first, environment, version, shadow) == (0, "dev", 7, False)
    assert before <= when <= time.time()
    assert [json.loads(value) for value in values] == [{"a": 1}, 0.25]
    assert second[:2] == (request, 1)
    assert json.loads(second[-1]) == [0.5, 0.5]
    assert left(tmp_path / "journal") == []


def test_what_was_looked_up_is_a_feature_too(opened, url):
    log = opened(url)
    add(log, looked_up=[{"b": 2.5}, {}])
    record = {"time": time.time(), "seconds": 0.001, "shadow": False, "looked_up": [{"b": None}]}
    log.add(b'{"rows": [ {  } ]}', [(0, 1, 0.5)], request="without a column", **record)
    log.close()
    found = [json.loads(row[-2]) for row in rows(url)]
    assert found == [{"a": 1, "b": 2.5}, {"a": None}, {"b": None}]


def test_a_database_that_is_away_is_waited_for(opened, url):
    log = opened(AWAY)
    for _ in range(10):
        add(log)
    log.close()
    opened(url).close()
    assert len(rows(url)) == 20


def test_a_killed_process_loses_nothing_that_it_answered(opened, url, tmp_path):
    code = WRITER.format(
        module=prediction_log.__name__,
        folder=str(tmp_path / "journal"),
        url=url,
        asked=ASKED,
        answered=ANSWERED,
    )
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    answered = sum(len(writer.stdout.readline()) for _ in range(200))
    while not kept(url):  # it is killed while it carries and writes
        answered += len(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    answered += len(writer.communicate()[0])
    opened(url).close()
    found = len(rows(url))
    assert 2 * answered <= found <= 2 * answered + 2  # the last one was killed before it said so


def test_two_processes_share_a_folder(opened, url):
    """As while a release takes the place of another; neither takes what the other still writes."""
    both = [opened(url), opened(url)]
    for log in both * 50:
        add(log)
    for log in both:
        log.close()
    assert len(rows(url)) == 200


def test_beyond_its_limit_it_drops_and_counts(opened, url):
    log = opened(AWAY, limit=1000)
    for _ in range(50):
        add(log)
    kept = 50 - log.dropped
    assert 0 < kept < 10
    log.close()
    opened(url).close()
    assert len(rows(url)) == 2 * kept


def test_a_full_disk_costs_what_has_no_room_and_no_more(opened, url, tmp_path):
    """A limit on the size of files stops a write half-way; one on their number, the next file."""
    code = FULL.format(
        module=prediction_log.__name__,
        folder=str(tmp_path / "journal"),
        url=url,
        asked=ASKED,
        answered=ANSWERED,
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    asked, dropped = map(int, done.stdout.split())
    assert 0 < dropped < asked / 2
    assert len(rows(url)) == 2 * (asked - dropped)
    assert left(tmp_path / "journal") == []


def test_what_cannot_be_read_or_taken_blocks_nothing(opened, url, tmp_path, monkeypatch):
    """A line that was cut off, and a row that the database does not take."""
    log = opened(AWAY)
    add(log)
    add(log, 13)
    log.close()
    (file,) = (tmp_path / "journal").glob("*.jsonl")
    file.write_bytes(file.read_bytes() + b'\n{"request": "cut o')
    insert = prediction_log.PredictionTable.insert

    def picky(table: prediction_log.PredictionTable, some: list[tuple]) -> None:
        if any(row[2] == 13 for row in some):
            raise sql.exc.DataError("insert", {}, ValueError("13"))
        insert(table, some)

    monkeypatch.setattr(prediction_log.PredictionTable, "insert", picky)
    log = opened(url)
    log.close()
    assert len(rows(url)) == 2
    assert log.rejected == 2
    assert left(tmp_path / "journal") == ["rejected.txt"]


def test_lines_that_somebody_else_wrote_block_nothing(opened, url, tmp_path):
    """Numbers beyond the rows or the database, bytes that are no text, another form, no end."""
    log = opened(AWAY)
    add(log, 1)
    add(log, 2)
    log.close()
    (file,) = (tmp_path / "journal").glob("*.jsonl")
    first, second = file.read_bytes().strip().splitlines()
    forged = [
        first.replace(b"[0,1,", b"[9,1,"),
        first.replace(b"[0,1,", b"[0,%d," % 10**30),
        first.replace(b'"a"', b'"\xff"'),
        first.replace(b"[0,1,0.25]", b'"x"'),
        first.replace(b'"looked_up":null', b'"looked_up":[{}]'),
        first.replace(b'"looked_up":null', b'"looked_up":[1, 2]'),
        first[:-20],
        b"[" * 100_000,
        b"null",
        bytes(range(256)),
    ]
    assert len({*forged, first}) == len(forged) + 1
    file.write_bytes(b"\n".join([*forged, second]))
    opened(url).close()
    assert [row[2] for row in rows(url) if row[0] == json.loads(second)["request"]] == [2, 2]
    assert left(tmp_path / "journal") in ([], ["rejected.txt"])
