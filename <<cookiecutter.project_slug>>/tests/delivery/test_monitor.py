"""Monitoring: whose label it is, what is surely worse, and that each alert is sent once."""

import contextlib
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sql

from << cookiecutter.package_name >> import data
from << cookiecutter.package_name >>.continuous_training import (
    settings as training,
)
from << cookiecutter.package_name >>.continuous_training.decision import history
from << cookiecutter.package_name >>.delivery import (
    settings as delivery_settings,
)
from << cookiecutter.package_name >>.delivery.monitoring import (
    collect,
    dashboard,
    label_join,
    live_metrics,
)
from << cookiecutter.package_name >>.delivery.monitoring.alerts import (
    AlertKey,
    AlertTable,
)
from << cookiecutter.package_name >>.delivery.release import releases
from << cookiecutter.package_name >>.delivery.service.prediction_log import (
    PredictionTable,
)
from << cookiecutter.package_name >>.experiment import (
    dataset,
    floors,
    registry,
    tables,
    tracking,
)
from << cookiecutter.package_name >>.experiment.cli import main
from << cookiecutter.package_name >>.experiment.column_types import (
    Kinds,
    json_rows,
)
from << cookiecutter.package_name >>.experiment.evaluate import metrics, predict
from << cookiecutter.package_name >>.experiment.params import ROOT, Params, load

DAY, NOW = 24 * 60 * 60, 1.8e9
KINDS = Kinds({"time": "date", "x": "number", "word": "text"})
BAD = "<script>alert('x')</script>|\n@all\"&"


@pytest.fixture
def own(tmp_path: Path) -> Params:
    """Settings of a table with time, x, word, name and y, in tmp_path."""
    about = {"source": f"{tmp_path}/*.parquet", "target": "y", "time": "time", "id": "name"}
    rest = {"evaluate": {"metric": "mae", "segments": ["word"]}, "register": {"name": "x"}}
    return Params.model_validate({"task": "regression", "data": about} | rest)


def labels(rows: int = 40) -> pd.DataFrame:
    start, k = pd.Timestamp("2025-01-01 10:30"), np.arange(rows)
    frame = {"time": start + pd.to_timedelta(k // 4, unit="D"), "x": k / 3, "name": 100 + k}
    return pd.DataFrame(frame | {"word": np.where(k % 2, "odd", None), "y": k * 1.0})


def logged(rows: pd.DataFrame, without: tuple[str, ...] = ("name",)) -> pd.DataFrame:
    """As a client sends them: rounded, dates with a zone."""
    sent = rows.drop(columns=["y", *without])
    sent = sent.assign(time=sent["time"].dt.strftime("%Y-%m-%dT%H:%M:%S+00:00"))
    some = {"row": 0, "time": NOW - np.arange(len(rows)), "seconds": 0.01, "shadow": False}
    some |= {"request": [str(k) for k in range(len(rows))]}
    features = [row.decode() for row in json_rows(sent.round(10))]
    return pd.DataFrame(some | {"features": features, "prediction": "1.5"})


def join(rows: pd.DataFrame, params: Params, notes: list[str] | None = None) -> label_join.Labelled:
    sent = label_join.inputs(rows, KINDS, params.data.id)
    predictions = {1: label_join.with_keys(rows, sent, KINDS, params)}
    return label_join.join(predictions, params, [] if notes is None else notes)[1]


def test_labels_come_late(own, tmp_path):
    """By the inputs, by the id, and by whichever was sent."""
    frame = labels()
    rows = logged(frame)
    assert (len(join(rows, own).rows), join(rows, own).waiting) == (0, 40)
    frame.head(30).assign(y=lambda f: f["y"].where(f.index < 20)).to_parquet(tmp_path / "a.parquet")
    for sent in (rows, logged(frame, ()), pd.concat([rows.head(7), logged(frame, ()).tail(33)])):
        found = join(sent.reset_index(drop=True), own)
        assert (len(found.rows), found.waiting, found.ambiguous) == (20, 20, 0)
        assert sorted(found.labels["y"]) == list(range(20))
        sent_x = [json.loads(row)["x"] for row in found.rows["features"]]
        np.testing.assert_allclose(sent_x, found.labels["y"] / 3)


def test_the_latest_prediction_of_a_row_counts_once(own, tmp_path):
    frame = labels()
    frame.to_parquet(tmp_path / "a.parquet")
    rows, older = logged(frame), logged(frame)
    older = older.assign(prediction="9.5", time=older["time"] - DAY)
    failed = rows.assign(prediction=None, time=rows["time"] + DAY)
    found = join(pd.concat([failed, rows, older], ignore_index=True), own)
    assert (len(found.rows), found.waiting) == (40, 0)
    assert set(found.rows["prediction"]) == {"1.5"}


def test_what_cannot_be_told_apart_is_left_out(own, tmp_path):
    """Inputs that several rows have; an id with two labels, but not one that came twice."""
    frame = labels()
    frame.to_parquet(tmp_path / "a.parquet")
    same = frame.head(10).assign(name=900 + np.arange(10.0), y=lambda f: f["y"] + [0, 1] * 5)
    same.to_parquet(tmp_path / "b.parquet")
    found = join(logged(frame), own)
    assert (len(found.rows), found.waiting, found.ambiguous) == (30, 0, 10)
    assert found.labels["y"].min() == 10
    assert join(logged(frame, ()), own).ambiguous == 0
    same.assign(name=frame["name"]).to_parquet(tmp_path / "b.parquet")
    found = join(logged(frame, ()), own)
    assert (len(found.rows), found.ambiguous) == (35, 5)
    assert set(found.labels["y"].head(5)) == {0, 2, 4, 6, 8}


def test_what_cannot_be_used_is_left_out_and_noted(own, tmp_path):
    """Long numbers as ids, which as floats may be another row's; a batch that cannot be read."""
    labels().to_parquet(tmp_path / "a.parquet")
    frame = labels().assign(name=lambda f: f["name"] + 2**53)
    frame.to_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes(b"no table")
    notes: list[str] = []
    assert len(join(logged(frame, ()), own, notes).rows) == 0
    assert len(join(logged(labels(), ()), own).rows) == 40
    one, other = sorted(notes)
    assert "no labels of b for version 1" in one
    assert "name it in data.text" in one
    assert "no labels of c: " in other


def labelled(error: float, days: int = 20, rows: int = 2000, seed: int = 0) -> label_join.Labelled:
    """Predictions that are wrong by so much on average."""
    random, k = np.random.default_rng(seed), np.arange(rows)
    time = pd.Timestamp("2025-01-01") + pd.to_timedelta(k % days, unit="D")
    frame = pd.DataFrame({"time": time, "word": np.where(k % 2, "odd", "even"), "y": 0.0})
    logged = {"request": k.astype(str), "row": 0, "shadow": False, "time": NOW + 60.0 * k}
    logged["prediction"] = [str(v) for v in random.exponential(error, rows)]
    return label_join.Labelled(pd.DataFrame(logged), frame, 0, 0)


def for_gate(one: label_join.Labelled, params: Params) -> live_metrics.bootstrap.DayPredictions:
    return live_metrics.for_gate([one], params)[0]


def test_a_verdict_takes_an_interval_and_rows_enough(own):
    allowed = 1.1
    for error, verdict in ((1.0, False), (2.0, True)):
        value, (low, high) = live_metrics.bootstrap.measure("mae", for_gate(labelled(error), own))
        assert low < value < high
        assert live_metrics.surely_worse("mae", value, (low, high), allowed) is verdict
        assert live_metrics.surely_worse("roc_auc", -value, (-high, -low), -allowed) is verdict
    few = for_gate(labelled(1.2, rows=30), own)
    value, interval = live_metrics.bootstrap.measure("mae", few)
    assert live_metrics.surely_worse("mae", value, interval, value - 0.01) is None
    assert live_metrics.enough_labels(for_gate(labelled(1.0), own), 2000)
    assert not live_metrics.enough_labels(for_gate(labelled(1.0), own), 2001)
    days = live_metrics.MIN_DAYS - 1
    assert not live_metrics.enough_labels(for_gate(labelled(1.0, days=days), own), 500)


def test_a_segment_is_judged_beside_what_it_was(own):
    one = labelled(1.0)
    odd = one.labels["word"] == "odd"
    worse = [
        str(3 * float(v)) if o else v for v, o in zip(one.rows["prediction"], odd, strict=True)
    ]
    one = one._replace(rows=one.rows.assign(prediction=worse))
    record = pd.DataFrame({"segment": ["word = odd", "word = even"], "mae": 1.1, "rows": 900})
    record = record.assign(model="candidate")
    limits = live_metrics.gate.Gate()
    found = live_metrics.segments(for_gate(one, own), one.labels, record, limits, own)
    assert {part["segment"]: part["worse"] for part in found} == {
        "word = odd": True,
        "word = even": False,
    }


def compared(other: label_join.Labelled, rows: int, params: Params) -> dict | None:
    return live_metrics.compare_versions(labelled(1.0), other, 1, rows, params)


def test_two_versions_are_told_apart_or_not(own):
    verdicts = [compared(labelled(error, seed=1), 500, own)["verdict"] for error in (0.5, 1.0, 2.0)]
    assert verdicts == ["better", "not told apart yet", "worse"]
    assert compared(labelled(9.0, seed=1), 5000, own)["verdict"] == "not told apart yet"
    later = labelled(0.5)
    later.rows["time"] += 119_900
    assert compared(later, 500, own) is None
    shadow = labelled(0.5, rows=1000)
    shadow.rows["shadow"] = True
    assert "on 1,000 and 1,000 labelled rows" in compared(shadow, 500, own)["message"]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'alerts.db'}"


def at(url: str, now: float) -> AlertTable:
    return AlertTable(sql.create_engine(url), "dev", now)


def test_an_alert_opens_once_closes_and_opens_again(url):
    key, other = AlertKey("degradation", 3), AlertKey("segment", 3, "word = odd")
    both = {key: (True, "worse"), other: (True, "worse")}
    assert at(url, 1).update(both) == {key, other}
    first, _ = (alert.content()["id"] for alert in at(url, 1).open())
    assert at(url, 2).update(both | {key: (True, "much worse")}) == set()
    assert [a.message for a in at(url, 2).open()] == ["much worse", "worse"]
    assert at(url, 3).update({key: (None, "who knows")}) == set()
    assert [(a.key, a.opened) for a in at(url, 4).open()] == [(key, 1)]
    assert [a.content()["id"] for a in at(url, 4).open()] == [first]
    at(url, 5).update({key: (False, "")})
    assert at(url, 5).open() == []
    assert at(url, 6).update({key: (True, "again")}) == {key}
    assert [a.opened for a in at(url, 6).open()] == [6]
    assert [a.content()["id"] for a in at(url, 6).open()] != [first]


def test_two_monitors_at_once_open_an_alert_once(url):
    keys = [AlertKey("degradation", version) for version in range(1, 21)]
    wait, opened = threading.Barrier(2), []

    def monitor() -> None:
        mine = at(url, 1)
        for key in keys:
            wait.wait()
            opened.extend(mine.update({k: (True, "worse") for k in keys[: key.version]}))

    both = [threading.Thread(target=monitor) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(opened) == keys


@contextlib.contextmanager
def webhook(port: int = 0) -> Iterator[tuple[int, list[dict]]]:
    """A real server, and what it was sent."""
    got: list[dict] = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", port), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, got
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_that_was_away_is_sent_later(url, monkeypatch, caplog):
    with webhook() as (port, _):
        pass
    monkeypatch.setenv("ALERT_WEBHOOK", f"http://127.0.0.1:{port}/hook?token=hidden")
    at(url, 1).update({AlertKey("drift", 3): (True, BAD)})
    at(url, 1).post()
    assert "ConnectError" in caplog.text
    assert "hidden" not in caplog.text
    with webhook(port) as (_, got):
        for now in (2, 3):
            at(url, now).post()
    (sent,) = got
    assert (sent["name"], sent["version"], sent["environment"]) == ("drift", 3, "dev")
    assert sent["text"] == f"dev: drift: {' '.join(BAD.split())}"
    assert sent["id"] == at(url, 4).open()[0].content()["id"]


def test_a_monitor_that_is_killed_while_it_sends_sends_again(url, monkeypatch):
    """The receiver knows the repeat by its id."""
    at(url, 1).update({AlertKey("drift", 3): (True, "drifted")})
    with webhook() as (port, got), monkeypatch.context() as patch:
        monkeypatch.setenv("ALERT_WEBHOOK", f"http://127.0.0.1:{port}/hook")
        patch.setattr(AlertTable, "_set", lambda *_, **__: 1 / 0)  # here it is killed
        with pytest.raises(ZeroDivisionError):
            at(url, 2).post()
        patch.undo()
        at(url, 3).post()
        at(url, 4).post()
    assert len(got) == 2
    assert got[0] == got[1]


class Well(HTMLParser):
    """Every element that has to be closed is, in the right order; no script."""

    OPEN = ("meta", "th", "td", "tr", "p", "html", "br", "li")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        assert tag != "script"
        if tag not in self.OPEN:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.OPEN:
            assert self.stack.pop() == tag


@pytest.fixture(scope="module")
def watched(released: Path) -> Path:
    """A project whose environment dev serves version 1."""
    shutil.copy(ROOT / "dvc.yaml", released)
    params = load(released / "params.yaml")
    client = tracking.connect()
    client.set_registered_model_alias(params.register_.name, "dev", "1")
    return released


def told_apart(params: Params, kinds: Kinds) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the newest batch whose inputs no other row has, and the inputs that are sent."""
    paths = dataset.batches(params.data.model_copy(update={"through": None}))
    store = floors.feature_store(params.data)
    names = [column for column in kinds if store is None or column not in store.columns]
    whole = pd.concat([tables.read([path], params.data) for path in paths], keys=range(len(paths)))
    hashes = label_join.hash_inputs(whole, Kinds({name: kinds[name] for name in names}))
    alike = pd.Series(hashes, whole.index).duplicated(keep=False)
    frame = whole[~alike]
    frame = frame[frame.index.get_level_values(0) == len(paths) - 1].reset_index(drop=True)
    if len(frame) < 100:
        pytest.skip("the rows are alike: by their inputs alone no label can be told")
    return (frame if store is None else store.add(frame)), names


@pytest.fixture
def served(watched: Path, monkeypatch, tmp_path) -> Callable[..., None]:
    """Log what version 1 answers on the newest batch; `wrong` answers are of other rows."""
    monkeypatch.setenv("PREDICTION_LOG_URL", f"sqlite:///{tmp_path / 'log.db'}")
    params = load(watched / "params.yaml")
    version = registry.require_version(tracking.connect(), params.register_.name, "1")
    model, kinds = registry.load_model(version, params)
    frame, names = told_apart(params, kinds)

    def log(number: int = 1, wrong: bool = False, days: float = 2, rows: int = 10**6) -> None:
        some = frame.head(rows)
        answers = predict(model, some[list(kinds)])
        if wrong:
            answers = answers[np.random.default_rng(0).permutation(len(some))]
        sent = [row.decode() for row in json_rows(some[names])]
        when = time.time() - DAY * np.linspace(days, 0.01, len(some))
        PredictionTable(releases.prediction_log_url()).insert(
            [
                (f"{k}-{days}", 0, number, float(when[k]), 0.004, "dev", False, sent[k], answer)
                for k, answer in enumerate(map(json.dumps, answers.tolist()))
            ]
        )

    return log


@pytest.fixture
def settle(watched: Path) -> Iterator[Callable[..., None]]:
    """Change numbers of a settings file, by the names of their keys; put back afterwards."""
    before = {p: p.read_text(encoding="utf-8") for p in watched.glob("*.yaml")}

    def change(file: str, **values: object) -> None:
        path = watched / file
        text = path.read_text(encoding="utf-8")
        for key, value in values.items():
            text, count = re.subn(rf"\b{key}: [^ ,}}\n]+", f"{key}: {value}", text)
            assert count, key
        path.write_text(text, encoding="utf-8")

    yield change
    for path, text in before.items():
        path.write_text(text, encoding="utf-8")


def ran(root: Path, *words: str) -> dict:
    """What the step reports; its page is well-formed."""
    assert main(["monitor", "--env", "dev", *words]) == 0
    Well((root / "reports/monitor.html").read_text(encoding="utf-8"))
    return json.loads((root / "reports/monitor.json").read_text(encoding="utf-8"))


def names(found: dict) -> set[str]:
    return {alert["name"] for alert in found["alerts"]}


def test_nothing_was_predicted_yet(watched, served, caplog):
    with caplog.at_level("INFO"):
        found = ran(watched)
    assert (found["schema"], found["environment"], found["version"]) == (2, "dev", 1)
    assert found["versions"] == found["drift"] == {}
    assert names(found) == {"service"}  # nothing listens there
    assert "dev does not answer" in caplog.text
    assert main(["monitor", "--env", "moon"]) == 1


def test_no_labels_yet(watched, served, settle):
    served()
    settings = load(watched / "params.yaml").data
    path = dataset.batches(settings.model_copy(update={"through": None}))[-1]
    whole, rows = path.read_bytes(), next(tables.chunks(path, settings))
    tables.write(rows.assign(**{settings.target: None}), path, settings)
    try:
        found = ran(watched)
    finally:
        path.write_bytes(whole)
    its = found["versions"]["1"]
    assert (its["labelled"], its["waiting"]) == (0, its["rows"])
    assert found["drift"]
    assert "No labels have come" in (watched / "reports/monitor.html").read_text(encoding="utf-8")
    assert "degradation" not in names(found)


def test_live_metrics_are_those_of_the_labelled_rows(watched, served, params):
    """As `evaluate --batch` has them."""
    served()
    found = ran(watched)["versions"]["1"]
    version = registry.require_version(tracking.connect(), params.register_.name, "1")
    model, kinds = registry.load_model(version, params)
    rows = data.labelled(told_apart(params, kinds)[0], params)
    X, y = data.xy(rows, params, any_classes=True)
    expected = metrics(y, predict(model, X), getattr(model, "classes_", None))
    assert found["labelled"] == len(rows)
    live_metrics = pd.Series(found["metrics"], dtype=float)  # null is NaN
    for name, value in expected.items():
        assert live_metrics[name] == pytest.approx(value, abs=1e-9, nan_ok=True)
    assert found["value"] == pytest.approx(expected[params.evaluate.metric])


def test_only_the_newest_rows_are_read(watched, served, settle):
    settle("delivery.yaml", rows=100)
    served()
    served(days=100, rows=50)
    found = ran(watched)
    its = found["versions"]["1"]
    assert its["truncated"]
    assert its["labelled"] + its["waiting"] + its["ambiguous"] == 100
    assert any("only the newest 100 of" in note for note in found["notes"])


def decide(root: Path, decision: str) -> None:
    """Log a decision of the gate about the present data and recipe."""
    params, limits = load(root / "params.yaml"), training.load()
    state = history.state(params, limits)
    written = {"decision": decision, "trigger": "demand", "commit": "none", "data": state.data}
    written |= {"challenger": {"version": 1, "run_id": "none"}}
    with tracking.decision(decision) as run_id:
        history.log(tracking.connect(), run_id, written, {}, state)


def test_retraining_waits_while_it_would_leave_out_the_rows_that_were_served(
    watched, served, settle
):
    left_out = dataset.left_out(load(watched / "params.yaml").data)
    if not left_out:
        pytest.skip("all batches are used")
    settle("delivery.yaml", labelled=100)
    served(wrong=True)
    found = ran(watched)
    assert "degradation" in names(found)
    assert found["retrain"] is None
    assert any(f"leaves out {', '.join(left_out)}" in note for note in found["notes"])


def test_a_degradation_asks_for_retraining_until_it_is_decided(watched, served, settle):
    settle("delivery.yaml", labelled=100)
    settle("continuous_training.yaml", tolerance=0.02)
    settle("params.yaml", through="null")
    served(wrong=True)
    found = ran(watched)
    assert "degradation" in names(found)
    assert found["retrain"]["name"] == "degradation"
    assert "when the version was judged" in found["retrain"]["reason"]
    again = ran(watched)
    assert again["retrain"] == found["retrain"]
    assert not any(alert["new"] for alert in again["alerts"])
    assert [a["id"] for a in again["alerts"]] == [a["id"] for a in found["alerts"]]
    decide(watched, "promoted")
    decided = ran(watched)
    assert "degradation" in names(decided)
    assert decided["retrain"] is None
    assert any("retraining waits for new data" in note for note in decided["notes"])


def test_retraining_that_cannot_start_is_tried_again(watched, served, settle, monkeypatch, capsys):
    settle("delivery.yaml", labelled=100)
    settle("params.yaml", seed=1, through="null")  # a recipe that is not decided
    served(wrong=True)
    assert main(["monitor", "--env", "dev", "--retrain"]) == 1
    assert "commit your changes first" in capsys.readouterr().err
    reasons = []
    from << cookiecutter.package_name >>.continuous_training import retrain

    def retraining(because: str) -> None:
        reasons.append(because)
        decide(watched, "promoted")

    monkeypatch.setattr(retrain, "run", retraining)
    for _ in range(2):
        ran(watched, "--retrain")
    (because,) = reasons
    assert because.startswith("degradation: version 1: ")


def test_after_refusals_it_asks_for_an_experiment(watched, served, settle):
    settle("delivery.yaml", labelled=100)
    settle("params.yaml", through="null")
    served(wrong=True)
    for _ in range(training.load().triggers.refusals):
        assert ran(watched)["experiment"] is None
        decide(watched, "refused")
    found = ran(watched)
    assert "new experiment" in found["experiment"]
    assert found["retrain"] is None
    assert {"degradation", "experiment"} <= names(found)
    assert "refused: version 1" in (watched / "reports/monitor.html").read_text(encoding="utf-8")
    decide(watched, "promoted")


def test_the_page_escapes_what_comes_from_the_data(watched, served, settle):
    settle("delivery.yaml", labelled=100)
    served(wrong=True)
    served(number=2, days=1)
    params, limits = load(watched / "params.yaml"), delivery_settings.load()
    table = PredictionTable(releases.prediction_log_url())
    config = collect.Config(params, limits, training.load())
    report = collect.observe_environment("dev", table, time.time(), config)
    content = report.content
    first = {"rows": 900, "reference": 0.5, "allowed": 0.4, "worse": True}
    segment = first | {"segment": BAD, "value": 0.3, "interval": (0.2, np.nan)}
    content["versions"]["1"]["segments"] = [segment]
    content |= {"alerts": [{"name": "drift", "message": BAD, "since": BAD, "new": True}]}
    content |= {"retrain": {"name": "drift", "reason": BAD}, "notes": [BAD]}
    content["versions"]["2"]["comparison"] = {"message": BAD}
    name = next(iter(content["drift"]))
    for part in (content["drift"], *report.drift_counts[1:]):
        part[BAD] = part[name]
    report.events.append({"time": time.time(), "decision": BAD, "version": BAD})
    text = dashboard.page(report)
    Well(text)
    assert text.count("&lt;script&gt;alert(") >= 6
    assert "http" not in text.replace("http://127.0.0.1", "")
    short = dashboard.markdown(content)
    assert "<script" not in short
    assert "@all" not in short
