"""The service follows the registry: another version, a canary for a share of the entities, a shadow."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sql

from << cookiecutter.package_name >>.delivery.release import canary
from << cookiecutter.package_name >>.delivery.release.checks import request
from << cookiecutter.package_name >>.delivery.service import (
    app,
    prediction_log,
    registry_watcher,
    routing,
)
from << cookiecutter.package_name >>.experiment import registry, tracking
from << cookiecutter.package_name >>.experiment.column_types import Kinds
from << cookiecutter.package_name >>.experiment.errors import UserError

LIMITS = app.settings.Service()
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def version(trained: Path, params):
    return registry.require_version(tracking.connect(), params.register_.name, "champion")


@pytest.fixture
def numbered(version, params) -> Callable[[str], app.ServedVersion]:
    """The champion, served as another version; 99 does not load."""

    def serve(number: str) -> app.ServedVersion:
        if number == "99":
            raise RuntimeError("no such version")
        served = app.ServedVersion(version, params)
        served.version = int(number)
        return served

    return serve


@pytest.fixture
def log(tmp_path: Path) -> Iterator[prediction_log.Journal]:
    table = prediction_log.PredictionTable(f"sqlite:///{tmp_path / 'predictions.db'}")
    log = prediction_log.Journal(tmp_path / "journal", table, "dev", 10**8)
    yield log
    log.close()


@pytest.fixture
def running(numbered, log, params) -> app.Service:
    running = app.Service(numbered("1"), LIMITS, journal=log, data=params.data)
    running.loaded |= {number: numbered(number) for number in ("2", "3")}
    return running


@pytest.fixture(scope="module")
def given(X: pd.DataFrame, version, params) -> pd.DataFrame:
    return X[list(registry.load_model(version, params).kinds)]


def ask(running: app.Service, rows: pd.DataFrame) -> dict:
    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(running)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/predict", content=request(rows), headers=JSON)

    return asyncio.run(post()).raise_for_status().json()


def logged(log: prediction_log.Journal, wanted: int) -> pd.DataFrame:
    """The table, once it has so many rows."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        log.table.create()
        with log.table.engine.connect() as connection:
            found = pd.read_sql(sql.select(log.table.table), connection)
        if len(found) >= wanted:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{len(found)} rows, not {wanted}")


def test_the_same_entities_are_always_the_canarys(running, given):
    """Whatever comes with them in a request; a larger share keeps those of a smaller one."""
    chosen = {}
    for share in (0, 20, 60, 100):
        running.route(routing.Routes("1", "2", share))
        together = ask(running, given)["versions"]
        assert ask(running, given[::-1])["versions"] == together[::-1]
        assert ask(running, given.iloc[[5]])["versions"] == together[5:6]
        chosen[share] = {k for k, number in enumerate(together) if number == 2}
    assert not chosen[0] and len(chosen[100]) == len(given)
    assert chosen[20] < chosen[60]
    assert 0.4 * len(given) < len(chosen[60]) < 0.8 * len(given)


def test_a_canary_that_fails_is_answered_for(running, given, log):
    running.loaded["2"].fast = None
    running.loaded["2"].batcher.score_rows = None
    expected = ask(running, given)["predictions"]
    running.route(routing.Routes("1", "2", 50))
    answer = ask(running, given)
    np.testing.assert_allclose(answer["predictions"], expected, rtol=0, atol=1e-9)
    assert set(answer["versions"]) == {1}
    rows = logged(log, 2 * len(given) + 1)
    failed = rows[rows["version"] == 2]
    assert len(failed) and failed["prediction"].isna().all()


def test_a_shadow_is_logged_and_answers_nobody(running, given, log):
    running.route(routing.Routes("1", shadow="3"))
    answer = ask(running, given)
    assert set(answer["versions"]) == {1}
    rows = logged(log, 2 * len(given))
    assert rows.groupby("version")["shadow"].all().to_dict() == {1: False, 3: True}
    assert set(rows["request"]) == {answer["request"]}
    assert running.shadow.dropped == 0
    running.shadow.close()
    for _ in range(10 * routing.SHADOW_QUEUE):
        running.shadow.add([()])
    assert running.shadow.dropped > 8 * routing.SHADOW_QUEUE


def test_it_follows_the_registry_and_refuses_what_cannot_serve(numbered):
    """The old version answers until the new one is loaded and checked; a broken one never does."""
    running = app.Service(numbered("1"), LIMITS)
    broken, away = routing.Routes("99", "2", 30), RuntimeError("away")
    places = iter([routing.Routes("1"), broken, away])

    def find() -> routing.Routes:
        found = next(places, routing.Routes("77"))
        if isinstance(found, Exception):
            assert running.refused == {"99": "RuntimeError: no such version"}
            assert (running.main.version, running.canary.version) == (1, 2)
            raise found
        return found

    async def watch() -> None:
        following = asyncio.create_task(
            registry_watcher.RegistryWatcher(running, 0.01, find, numbered).follow()
        )
        while running.main.version != 77:
            await asyncio.sleep(0.01)
        following.cancel()

    asyncio.run(asyncio.wait_for(watch(), 60))
    assert (running.canary, list(running.loaded)) == (None, ["77"])


def test_a_version_whose_files_were_away_serves_later(numbered):
    running, tries = app.Service(numbered("1"), LIMITS), []

    def serve(number: str) -> app.ServedVersion:
        tries.append(number)
        if len(tries) < 3:
            raise OSError("the files are away")
        assert running.refused == {"2": "OSError: the files are away"}
        return numbered(number)

    async def watch() -> None:
        find = lambda: routing.Routes("2")  # noqa: E731
        following = asyncio.create_task(
            registry_watcher.RegistryWatcher(running, 0.01, find, serve).follow()
        )
        while running.main.version != 2:
            await asyncio.sleep(0.01)
        following.cancel()

    asyncio.run(asyncio.wait_for(watch(), 60))
    assert (tries, running.refused) == (["2"] * 3, {})


def test_the_registry_says_who_answers(version):
    client, name = tracking.connect(), version.name
    number = str(version.version)
    client.set_registered_model_alias(name, "test", number)
    assert routing.read_routes(client, name, "test") == routing.Routes(number)
    routing.set_canary(client, name, "test", "7", 2.5, seconds=-1)
    assert routing.read_routes(client, name, "test").canary is None  # whoever watched it was killed
    routing.set_canary(client, name, "test", "7", 2.5, seconds=60)
    assert routing.read_routes(client, name, "test").canary == "7"
    routing.set_canary(client, name, "test", "7", 0.00001)
    assert routing.read_routes(client, name, "test").share == 0.00001
    routing.set_canary(client, name, "test", "7", 2.5)
    routing.set_shadow(client, name, "test", "8")
    assert routing.read_routes(client, name, "test") == routing.Routes(number, "7", 2.5, "8")
    for nonsense in ("7:half", "half", "7:nan", "7:inf", "7:-1", "7:101", "champion:5"):
        client.set_registered_model_tag(name, "canary_test", nonsense)
        with pytest.raises(UserError, match="canary_test"):
            routing.read_routes(client, name, "test")
    routing.set_canary(client, name, "test", None)
    client.set_registered_model_tag(name, "shadow_test", "champion")
    with pytest.raises(UserError, match="shadow_test"):
        routing.read_routes(client, name, "test")
    for _ in range(2):
        routing.set_canary(client, name, "test", None)
        routing.set_shadow(client, name, "test", None)
    assert routing.read_routes(client, name, "test") == routing.Routes(number)
    client.delete_registered_model_alias(name, "test")


def test_a_canary_takes_what_requests_hold():
    main = Kinds(a="number", b="text")
    routing.check_inputs(Kinds(b="text", view="number"), main, ("view",))
    for other in (Kinds(c="number"), Kinds(a="text"), Kinds(view="number")):
        with pytest.raises(UserError):
            routing.check_inputs(other, main, ())


def test_a_canary_is_judged_by_its_rows():
    rule = app.settings.Canary(errors=0.01, p99=50, psi=0.2)
    main = pd.DataFrame({"seconds": 0.01, "score": [k / 500 for k in range(500)]})
    assert "0.00% failed" in canary.check(main.copy(), main, rule)
    sure = main.assign(score=(main["score"] > 0.5) * 0.998 + 0.001 * main["score"])
    surer = sure.assign(score=(sure["score"] - 0.5).clip(-0.4999, 0.4998) + 0.5)
    assert "PSI of the scores 0.0" in canary.check(surer, sure, rule)
    with pytest.raises(UserError, match="PSI"):
        canary.check(sure.assign(score=sure["score"].mean()), sure, rule)
    other = {
        "failed": main.assign(score=main["score"].where(main.index % 10 > 0)),
        "p99": main.assign(seconds=0.06),
        "PSI": main.assign(score=main["score"] ** 3),
    }
    for word, own in other.items():
        with pytest.raises(UserError, match=word):
            canary.check(own, main, rule)
    assert canary.check(main.head(0), main, rule) == "no row yet"


def test_one_number_of_a_prediction():
    found = [canary.score(text) for text in (None, "null", "2.5", "[0.1, 0.9]", "[null]")]
    assert str(found) == str([float("nan"), float("nan"), 2.5, 0.9, float("nan")])
    assert json.dumps(found[2:4]) == "[2.5, 0.9]"


def test_it_waits_for_the_service(monkeypatch):
    limits = app.settings.Settings(environments={}, checks=app.settings.Checks(ready=0.1))
    limits = limits.model_copy(update={"service": app.settings.Service(follow=0.1)})
    target = SimpleNamespace(url="http://127.0.0.1:1")
    with pytest.raises(UserError, match="does not follow"):
        canary.wait_for(target, limits, version=2)
