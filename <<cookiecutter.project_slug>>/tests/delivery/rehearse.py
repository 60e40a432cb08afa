"""A rehearsal: the whole loop on this machine, in a copy of the project, in a few minutes.

`make rehearse` commits, checks, deploys and sends traffic; then the labels change, which monitoring sees;
it retrains, and rolls out the new version by a canary; last it pushes a bad model. The project itself does
not change; the batches are samples. reports/rehearsal/ keeps the reports.
"""

import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import yaml

from << cookiecutter.package_name >>.delivery import settings
from << cookiecutter.package_name >>.delivery.release import releases
from << cookiecutter.package_name >>.delivery.release.checks import requests
from << cookiecutter.package_name >>.experiment import dataset, tables
from << cookiecutter.package_name >>.experiment.cli import guarded
from << cookiecutter.package_name >>.experiment.column_types import kinds
from << cookiecutter.package_name >>.experiment.errors import UserError
from << cookiecutter.package_name >>.experiment.params import ROOT, Params, load

HISTORY_ROWS = 2500  # of each batch at first
ARRIVING_ROWS = 8000  # of the batch that arrives
LATER_ROWS = 4000  # of the same batch, sent and labelled after retraining
CHANGED_SHARE = 0.3  # of the rows concerned, whose label changes
GIT_OPTIONS = (
    "-c",
    "user.name=rehearsal",
    "-c",
    "user.email=rehearsal@example.com",
    "-c",
    "core.hooksPath=",
)
PACKAGE = "<< cookiecutter.package_name >>"
MODULE = f"{PACKAGE}/features.py"
MISTAKE = """

_right = derive


def derive(frame, time):
    found = _right(frame, time)
    return found.assign(**{c: 0.0 if found[c].dtype == float else "same" for c in found})
"""
TOKEN = secrets.token_urlsafe()  # that a prediction takes
REPORTS = ("monitor.html", "monitor.json", "decision.md", "gate.json", "triggers.json")

log = logging.getLogger(__name__)


class Copy:
    """A clone of the project with settings, ports, releases and a registry of its own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.home = folder / "project", folder / "home"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        for name in ("PREDICTION_LOG_URL", "FEATURE_STORE_URL", "ALERT_WEBHOOK"):
            self.env.pop(name, None)
        self.env["SERVICE_TOKEN"] = TOKEN
        self.env |= {"PYTHONPATH": str(self.root / "src"), "DELIVERY_HOME": str(self.home)}
        self.home.mkdir()
        kept = releases.home() / "environments"  # that of a release takes a while to make
        kept.mkdir(parents=True, exist_ok=True)
        (self.home / "environments").symlink_to(kept, target_is_directory=True)
        self._run(["git", "clone", "-q", str(ROOT), str(self.root)], folder)

    def _run(self, command: list[str], cwd: Path) -> str:
        done = subprocess.run(command, cwd=cwd, env=self.env, capture_output=True, text=True)
        if done.returncode:
            lines = (done.stderr + done.stdout).strip().splitlines()[-3:]
            raise UserError(f"{' '.join(command[-4:])}: {' / '.join(lines)}")
        return done.stdout + done.stderr

    def tool(self, *command: str) -> str:
        return self._run([sys.executable, "-m", *command], self.root)

    def step(self, *command: str) -> str:
        return self.tool(PACKAGE, *command)

    def commit(self, message: str) -> str:
        self._run(["git", "add", "--all"], self.root)
        self._run(["git", *GIT_OPTIONS, "commit", "-q", "--allow-empty", "-m", message], self.root)
        return self._run(["git", "rev-parse", "--short", "HEAD"], self.root).strip()

    def revert(self) -> None:
        self._run(["git", *GIT_OPTIONS, "revert", "--no-edit", "HEAD"], self.root)

    def edit(self, name: str, change: dict[str, dict]) -> None:
        """Change settings, by section."""
        path = self.root / name
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for section, values in change.items():
            content[section] = {**(content.get(section) or {}), **values}
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def report(self, name: str) -> Any:
        return json.loads((self.root / "reports" / name).read_text(encoding="utf-8"))


class Traffic:
    """Requests of one row each, one after the other, until it is stopped."""

    def __init__(self, url: str, rows: pd.DataFrame) -> None:
        self.send(rows)
        self.url, self.asked, self.failed, self.stop = url, 0, 0, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def send(self, rows: pd.DataFrame) -> None:
        """Ask for these rows from now on."""
        self.bodies = requests(rows)

    def _run(self) -> None:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=self.url, timeout=30, headers=headers) as client:
            while not self.stop.is_set():
                bodies = self.bodies
                body = bodies[self.asked % len(bodies)]
                try:
                    self.failed += not client.post("/predict", content=body).is_success
                except httpx.HTTPError:
                    self.failed += 1
                self.asked += 1
                time.sleep(0.002)

    def wait(self, count: int) -> None:
        end = self.asked + count
        while self.asked < end:
            time.sleep(0.05)

    def close(self) -> None:
        self.stop.set()
        self.thread.join()


def changed(frame: pd.DataFrame, params: Params) -> pd.DataFrame:
    """A batch whose labels changed: every other value of a column means something else for the target.

    Of the rows with those values the share CHANGED_SHARE gets the rarest class, or in a regression a
    standard deviation more.
    """
    target, text = params.data.target, kinds(frame).of("text")
    column = next((c for c in params.evaluate.segments if c in frame), None) or next(
        iter(text), None
    )
    if column is None:
        hit = frame.index % 2 == 0
    else:
        hit = frame[column].isin(frame[column].value_counts().index[::2]).to_numpy()
    hit = (
        hit
        & (np.random.default_rng(0).random(len(frame)) < CHANGED_SHARE)
        & frame[target].notna().to_numpy()
    )
    if params.task == "regression":
        return frame.assign(**{target: frame[target] + frame[target].std() * hit})
    rare = frame[target].value_counts().index[-1]
    return frame.assign(**{target: frame[target].where(~hit, rare)})


def read(path: Path, rows: int, params: Params) -> pd.DataFrame:
    """Some rows of a batch, in random order."""
    frame = next(tables.chunks(path, params.data, rows=100 * ARRIVING_ROWS))
    return frame.sample(min(rows, len(frame)), random_state=0)


def write(frame: pd.DataFrame, place: Path, params: Params) -> pd.DataFrame:
    """Write a batch, its rows in their order; returns them, typed."""
    frame = frame.sort_index()
    place.parent.mkdir(parents=True, exist_ok=True)
    tables.write(frame, place, params.data)
    return tables.read([place], params.data)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@contextmanager
def logged(text: str) -> Iterator[list[str]]:
    """Log a line for each step: its time, what it does, and the results that it adds to the list."""
    start = time.perf_counter()
    results: list[str] = []
    yield results
    log.info("%6.1f s  %-48s %s", time.perf_counter() - start, text, "; ".join(results))


def run() -> None:
    params, start = load(), time.perf_counter()
    batches = dataset.batches(params.data.model_copy(update={"through": None}))
    if len(batches) < 2:
        raise UserError("a rehearsal takes two batches at least: one to train on, one to arrive")
    used = len(dataset.batches(params.data))
    history = batches[: min(used, len(batches) - 1)]
    with tempfile.TemporaryDirectory(prefix="rehearsal-", ignore_cleanup_errors=True) as folder:
        copy = Copy(Path(folder).resolve())
        try:
            rehearse(copy, history, batches[len(history)], params)
        finally:
            for name in settings.load().environments:
                copy.step("deploy", "--env", name, "--stop")
            kept = ROOT / "reports/rehearsal"
            kept.mkdir(parents=True, exist_ok=True)
            for name in REPORTS:
                if (copy.root / "reports" / name).exists():
                    shutil.copy(copy.root / "reports" / name, kept)
    log.info(
        "%6.1f s  all of it; reports/rehearsal/monitor.html shows it", time.perf_counter() - start
    )


def rehearse(copy: Copy, history: list[Path], arriving: Path, params: Params) -> None:
    names, raw = list(settings.load().environments), (copy.root / params.data.source).parent
    last = names[-1]
    with logged("commit: settings of the rehearsal") as results:
        for path in history:
            write(read(path, HISTORY_ROWS, params), raw / path.name, params)
        ports = free_ports(len(names))
        local = {n: {"target": "local", "port": p} for n, p in zip(names, ports, strict=True)}
        quick = {"rows": 100, "minutes": 2, "psi": 3}
        change: dict[str, dict] = {"environments": local, "service": {"follow": 1}, "canary": quick}
        copy.edit("delivery.yaml", change)
        copy.edit("params.yaml", {"data": {"through": None}})
        copy.edit("continuous_training.yaml", {"gate": {"doubt_rows": False}})  # it did change
        results.append(copy.commit("chore: a rehearsal"))
    with logged("pipeline CI: style, secrets, unit tests") as results:
        copy.tool("ruff", "check", "--quiet", "src", "tests")
        copy.tool("pytest", "-q", "-p", "no:cacheprovider", "tests/test_features.py")
        results.append("green")
    with logged("continuous training: pipeline, first champion") as results:
        copy.step("retrain")
        copy.step("materialize")
        gate = copy.report("gate.json")
        results.append(f"{gate['decision']} version {gate['challenger']['version']}")
        copy.commit("chore: state of the pipeline")
    for name in names:
        with logged(f"pipeline CD: {name}") as results:
            copy.step("deploy", "--env", name)
            results += copy.report(f"deployment-{name}.json")["checks"][:1]
    labelled = changed(read(arriving, ARRIVING_ROWS + LATER_ROWS, params), params)
    cut = len(labelled) * ARRIVING_ROWS // (ARRIVING_ROWS + LATER_ROWS)
    first, later = (copy.home / part / arriving.name for part in ("first", "later"))
    batch, others = write(labelled[:cut], first, params), write(labelled[cut:], later, params)
    url = f"http://127.0.0.1:{ports[-1]}"
    inputs = httpx.get(f"{url}/model").json()["inputs"]
    sent = [column for column in inputs if column in batch]
    traffic = Traffic(url, batch[sent])
    try:
        with logged("traffic, whose labels have changed") as results:
            traffic.wait(min(3000, len(batch)))
            results.append(f"{traffic.asked} requests, {traffic.failed} failed")
        with logged("monitoring: the labels arrive") as results:
            first.rename(raw / arriving.name)
            copy.step("monitor", "--env", last)
            asked = copy.report("monitor.json")["retrain"]
            reason = f"{asked['name']}: {asked['reason']}" if asked else "no degradation"
            results.append(reason)
        with logged("continuous training: asked for by monitoring") as results:
            copy.step(*(["monitor", "--env", last, "--retrain"] if asked else ["retrain"]))
            gate = copy.report("gate.json")
            results.append(f"{gate['decision']} version {gate['challenger']['version']}")
            copy.step("materialize")
            copy.commit("chore: state of the pipeline")
        traffic.send(others[sent])  # rows that the new version was not fitted on
        with logged(f"model CD: canary in {last}") as results:
            copy.step("canary", "--env", last)
            results.append(f"version {httpx.get(f'{url}/ready').json()['version']} answers")
        with logged("a bad model is pushed: all rows look alike to it") as results:
            with (copy.root / "src" / MODULE).open("a", encoding="utf-8") as file:
                file.write(MISTAKE)
            copy.commit("feat: a mistake")
            copy.step("retrain")
            gate = copy.report("gate.json")
            bad = str(gate["challenger"]["version"])
            refused = [check["name"] for check in gate["checks"] if not check["passed"]]
            results.append(f"{gate['decision']} version {bad} ({', '.join(refused)})")
            if gate["decision"] != "refused":
                raise UserError("the gate let a bad model pass")
        with logged("a person starts its canary all the same") as results:
            try:
                copy.step("canary", "--env", last, "--version", bad)
                raise UserError("the canary let a bad model pass")
            except UserError as error:
                if "everything again" not in str(error):
                    raise
                results.append("rolled back")
            copy.revert()
    finally:
        traffic.close()
    with logged("monitoring, once more") as results:
        later.rename(raw / f"{arriving.stem}-later{arriving.suffix}")
        copy.step("monitor", "--env", last)
        results.append(f"{traffic.asked} requests in all, {traffic.failed} failed")
        if traffic.failed:
            raise UserError(f"{traffic.failed} requests failed")


if __name__ == "__main__":
    sys.exit(guarded("rehearse", run))
