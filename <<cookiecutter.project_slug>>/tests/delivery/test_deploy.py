"""Deployment to this machine: no request is missed, and what fails a check goes back by itself."""

import contextlib
import json
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import yaml

from << cookiecutter.package_name >>.delivery import settings
from << cookiecutter.package_name >>.delivery.release import (
    build,
    checks,
    deployment,
    releases,
    targets,
)
from << cookiecutter.package_name >>.delivery.service import routing
from << cookiecutter.package_name >>.experiment import tracking
from << cookiecutter.package_name >>.experiment.cli import main
from << cookiecutter.package_name >>.experiment.errors import UserError
from << cookiecutter.package_name >>.experiment.registry import find_version

JSON = {"Content-Type": "application/json"}


def url(env: str = "dev") -> str:
    return targets.of(env, settings.load()).url


def alias(name: str, params) -> str | None:
    found = find_version(tracking.connect(), params.register_.name, name)
    return str(found.version) if found else None


def logged_requests() -> set[str]:
    """The requests in the prediction log, once the journal waits with none."""
    until = time.monotonic() + 60
    while any(_size(path) for path in (releases.home() / "journal/dev").glob("*.jsonl")):
        assert time.monotonic() < until
        time.sleep(0.05)
    with (
        sqlite3.connect(releases.home() / "predictions.db") as database,
        contextlib.suppress(sqlite3.OperationalError),  # it has no table yet
    ):
        return {found for (found,) in database.execute("SELECT request FROM predictions")}
    return set()


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):  # it was shipped
        return path.stat().st_size
    return 0


def report(root: Path, env: str = "dev") -> dict:
    return json.loads((root / f"reports/deployment-{env}.json").read_text(encoding="utf-8"))


def test_a_key_that_is_no_setting_gets_a_hint(tmp_path):
    path = tmp_path / "delivery.yaml"
    path.write_text("environments: {dev: {target: local, prot: 1}}", encoding="utf-8")
    with pytest.raises(UserError, match=r"dev\.prot is not a setting; did you mean port"):
        settings.load(path)


def test_the_same_commit_makes_the_same_release(released):
    """Whatever modes files get here: another umask, a drive that knows none. It holds the templates, too."""
    first, git = build.build(), ("git", "-C", str(released), "config", "core.fileMode")
    subprocess.run([*git, "false"], check=True)
    (released / "params.yaml").chmod(0o755)
    mask = os.umask(0o077)
    assert list(releases.path_of(first).glob("site/**/*.html.jinja"))
    try:
        assert build.build() == first
    finally:
        os.umask(mask)
        (released / "params.yaml").chmod(0o644)
        subprocess.run([*git, "true"], check=True)


def test_changes_that_are_not_committed_are_not_released(released, capsys):
    path = released / "params.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + "\n", encoding="utf-8")
    assert main(["build"]) == 1
    assert "commit your changes first" in capsys.readouterr().err
    path.write_text(text, encoding="utf-8")


def test_a_release_goes_to_dev_first(released, capsys):
    assert main(["deploy", "--env", "staging"]) == 1
    assert "nothing runs in dev" in capsys.readouterr().err
    assert main(["deploy", "--env", "moon"]) == 1
    assert "no environment moon: there are dev, staging" in capsys.readouterr().err


def test_a_first_release_that_fails_leaves_nothing(released, params, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            checks, "predict", lambda model, rows: np.zeros(5)
        )  # what batch scoring would say
        assert main(["deploy", "--env", "dev"]) == 1
    assert "online and batch predictions differ" in capsys.readouterr().err
    assert report(released)["decision"] == "rolled back"
    assert alias("dev", params) is None
    assert deployment.ready(url()) == {}


def test_releases_follow_each_other_without_a_gap(released, params, commit, monkeypatch):
    assert main(["deploy", "--env", "dev"]) == 0
    first = deployment.ready(url())
    assert (alias("dev", params), str(first["version"])) == ("1", "1")
    commit()
    stop, failed, done = threading.Event(), [], []

    def ask() -> None:
        while not stop.is_set():
            try:
                done.append(httpx.get(f"{url()}/ready", timeout=10).raise_for_status())
            except httpx.HTTPError as error:
                failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert main(["deploy", "--env", "dev"]) == 0
    finally:
        stop.set()
        asking.join()
    second = deployment.ready(url())
    assert second["image"] != first["image"]
    assert not failed, failed[:3]
    assert len(done) > 20
    monkeypatch.setenv("SERVICE_TOKEN", "for-the-test")  # the checks send it
    assert main(["deploy", "--env", "staging"]) == 0
    assert deployment.ready(url("staging"))["image"] == second["image"]
    assert report(released, "staging")["code"] == second["code"]


@contextlib.contextmanager
def asked(body: bytes, where: str) -> Iterator[list]:
    """The answers that a client gets meanwhile, again and again for the same rows; none is an error."""
    stop, answers = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            answer = httpx.post(where, content=body, headers=JSON, timeout=30)
            answers.append(answer.raise_for_status())

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield answers
        finally:
            stop.set()
        asking.result()


def test_what_fails_its_checks_answers_nobody(released, params, X, commit, capsys):
    """A release that answers otherwise than batch, always or many rows; one that is slow, or does not start."""
    before = deployment.ready(url())
    httpx.post(f"{url()}/predict", content=checks.request(X), headers=JSON).raise_for_status()
    assert logged_requests()
    package = released / "src" / settings.__package__.replace(".", "/")
    limits = released / "delivery.yaml"
    for name, old, new, why in [
        (
            "service/routing.py",
            "scores.tolist()",
            "(scores + 0.01).tolist()",
            "smoke test: online and batch predictions differ",
        ),
        (
            "service/routing.py",
            "scores.tolist()",
            "(scores + 0.01 * (len(scores) > 50)).tolist()",
            "recent requests: online and batch predictions differ",
        ),
        ("service/app.py", "def run(", "1 / 0\n\n\ndef run(", "is not ready"),
    ]:
        code = (package / name).read_text(encoding="utf-8")
        assert old in code
        (package / name).write_text(code.replace(old, new), encoding="utf-8")
        commit()
        with asked(checks.request(X.head(3)), f"{url()}/predict") as answers:
            assert main(["deploy", "--env", "dev"]) == 1
        assert len(answers) > 20
        right = answers[0].json()["predictions"]
        assert all(answer.json()["predictions"] == right for answer in answers)
        said = capsys.readouterr().err
        assert why in said
        assert "rolled back to version 1" in said
        (package / name).write_text(code, encoding="utf-8")
    settled = limits.read_text(encoding="utf-8")
    strict = yaml.safe_load(settled)
    strict["checks"]["p99"] = 0.001
    limits.write_text(yaml.safe_dump(strict), encoding="utf-8")
    commit()
    assert main(["deploy", "--env", "dev"]) == 1
    assert "load check: 40 requests, p99" in capsys.readouterr().err
    limits.write_text(settled, encoding="utf-8")
    commit()
    assert deployment.ready(url()) == before
    assert alias("dev", params) == "1"
    assert report(released)["decision"] == "rolled back"


def test_what_comes_back_has_its_own_environment(released, commit, monkeypatch, capsys):
    """A deployment that fails at the very end had a token; the service that it brings back has none."""
    before, smoke, tests = deployment.ready(url()), checks.smoke, []

    def fails_at_last(*arguments) -> str:
        tests.append(smoke(*arguments))
        if len(tests) == 2:
            raise UserError("the proxy before it is away")
        return tests[0]

    monkeypatch.setattr(checks, "smoke", fails_at_last)
    monkeypatch.setenv("SERVICE_TOKEN", "for-the-test")
    commit()
    assert main(["deploy", "--env", "dev"]) == 1
    assert "the proxy before it is away; rolled back to version 1" in capsys.readouterr().err
    now = deployment.ready(url())
    assert now["image"] == before["image"]
    assert now["parent"] != before["parent"]
    answer = httpx.post(f"{url()}/predict", content=b'{"rows": [{}]}', headers=JSON)
    assert answer.status_code == 200


def test_checks_alone_are_not_logged(released, X):
    """A deployment's own secret keeps them out; nobody else can hide a request."""
    before = logged_requests()
    headers = JSON | {"X-Check": "deployment"}
    answer = httpx.post(f"{url()}/predict", content=checks.request(X.head(1)), headers=headers)
    assert logged_requests() - before == {answer.json()["request"]}
    assert main(["deploy", "--env", "dev"]) == 0
    assert "rows as in batch" in report(released)["checks"][1]
    assert logged_requests() - before == {answer.json()["request"]}


def test_a_version_or_release_that_is_not_there_changes_nothing(released, params, capsys):
    before = deployment.ready(url())
    assert main(["deploy", "--env", "dev", "--version", "99"]) == 1
    assert "no version of" in capsys.readouterr().err
    assert main(["deploy", "--env", "dev", "--image", f"sha256:{'0' * 64}"]) == 1
    assert "run the step `build`" in capsys.readouterr().err
    for image in ("sha256:0", "sha256:../../elsewhere", "latest", f"sha256:{'0' * 64}\n"):
        assert main(["deploy", "--env", "dev", "--image", image]) == 1
        assert "is no digest of a release" in capsys.readouterr().err
    assert deployment.ready(url()) | {"parent": 0} == before | {"parent": 0}


def test_a_release_that_was_changed_does_not_start(released, capsys):
    """A file edited, added, taken away; a link. To build it anew mends it, and what runs stays."""
    before = deployment.ready(url())
    digest = build.build()
    place = releases.path_of(digest)
    code = next(place.glob("site/*/experiment/train.py"))
    text = code.read_text(encoding="utf-8")
    for change, undo in [
        (lambda: code.write_text(f"{text}#"), lambda: code.write_text(text, encoding="utf-8")),
        (lambda: (place / "site/sklearn.py").touch(), (place / "site/sklearn.py").unlink),
        (lambda: (place / "sklearn").symlink_to("/"), (place / "sklearn").unlink),
        (code.unlink, lambda: code.write_text(text, encoding="utf-8")),
    ]:
        change()
        assert main(["deploy", "--env", "dev", "--image", digest]) == 1
        assert "were changed" in capsys.readouterr().err
        undo()
    code.unlink()
    assert build.build() == digest
    assert releases.verified(digest) == place
    assert deployment.ready(url()) | {"parent": 0} == before | {"parent": 0}


def test_a_service_that_is_killed_is_started_again(released, params):
    """With a shadow from its first answer on, for that is what the registry says."""
    before, client = deployment.ready(url()), tracking.connect()
    routing.set_shadow(client, params.register_.name, "dev", "1")
    (service,) = psutil.Process(before["parent"]).children()
    service.kill()
    service.wait()
    until = time.monotonic() + 60
    while not (now := deployment.ready(url())) and time.monotonic() < until:
        time.sleep(0.1)
    assert now == before | {"shadow": 1}
    routing.set_shadow(client, params.register_.name, "dev", None)


def test_a_canary_takes_over_or_goes_back(released, params, X, capsys):
    """Under traffic of which no request fails; a test and a shadow stay until they are stopped."""
    for step in (["train"], ["evaluate"], ["register", "--run", "last"]):
        assert main(step) == 0
    path = released / "delivery.yaml"
    settled = path.read_text(encoding="utf-8")
    try:  # the settings are written anew under the traffic, and put back
        with asked(checks.request(X.head(10)), f"{url()}/predict") as answers:
            assert main(["canary", "--env", "dev"]) == 0
            assert alias("dev", params) == "2"
            assert (report(released)["decision"], report(released)["version"]) == ("deployed", "2")
            assert targets.of("dev", settings.load()).current().version == "2"
            strict = yaml.safe_load(settled)
            strict["canary"]["p99"] = 0.0001
            path.write_text(yaml.safe_dump(strict), encoding="utf-8")
            assert main(["canary", "--env", "dev", "--version", "1"]) == 1
            assert "p99" in (said := capsys.readouterr().err)
            assert "version 2 answers everything again" in said
            assert alias("dev", params) == "2"
            for option in (["--share", "50"], ["--shadow"]):
                assert main(["canary", "--env", "dev", "--version", "1", *option]) == 0
            now = deployment.ready(url())
            assert (now["version"], now["canary"], now["share"], now["shadow"]) == (2, 1, 50, 1)
            assert main(["canary", "--env", "dev", "--stop"]) == 0
    finally:
        path.write_text(settled, encoding="utf-8")
    assert {answer.status_code for answer in answers} == {200}
    assert {v for answer in answers for v in answer.json()["versions"]} == {1, 2}


def test_predictions_are_logged(released, X):
    """By the service that is deployed, and once it has ended."""
    body = checks.request(X.head(3))
    asked = httpx.post(f"{url()}/predict", content=body, headers=JSON).raise_for_status()
    assert main(["deploy", "--env", "dev", "--stop"]) == 0
    query = "SELECT count(*), max(version) FROM predictions WHERE request ="
    query += " (SELECT request FROM predictions ORDER BY time DESC LIMIT 1)"
    with sqlite3.connect(releases.home() / "predictions.db") as database:
        assert database.execute(query).fetchone() == (3, asked.json()["versions"][0])


def test_stop(released):
    assert main(["deploy", "--env", "staging", "--stop"]) == 0
    assert deployment.ready(url("staging")) == {}
