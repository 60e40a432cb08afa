"""A service that starts while the registry is away answers as the one before it did."""

import mlflow
import numpy as np
import pytest

from << cookiecutter.package_name >>.delivery.service.routing import Routes
from << cookiecutter.package_name >>.delivery.service.version_store import (
    VersionStore,
)
from << cookiecutter.package_name >>.experiment import tracking
from << cookiecutter.package_name >>.experiment.errors import UserError
from << cookiecutter.package_name >>.experiment.evaluate import predict


@pytest.fixture
def kept(trained, params, tmp_path) -> VersionStore:
    """A store that has kept the champion, which answers alone."""
    client, env = tracking.connect(), "test"
    version = client.get_model_version_by_alias(params.register_.name, "champion").version
    client.set_registered_model_alias(params.register_.name, env, version)
    store = VersionStore(env, params, tmp_path / env)
    routes = store.start()
    assert routes == Routes(str(version))
    store.load(routes.main)
    store.keep(routes)
    place = mlflow.get_tracking_uri()
    yield store
    mlflow.set_tracking_uri(place)
    client.delete_registered_model_alias(params.register_.name, env)


def without_registry(store: VersionStore, monkeypatch) -> VersionStore:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    return VersionStore(store.env, store.params, store.folder)


def test_it_answers_as_before(kept, X, monkeypatch):
    """The same version, from the disk, with the same answers."""
    before = kept.load(kept.start().main)
    later = without_registry(kept, monkeypatch)
    routes = later.start()
    served = later.load(routes.main)
    assert (later.away, routes) == (True, Routes(str(before.version)))
    rows = X[list(before.kinds)]
    expected = predict(before.loaded.model, rows)
    np.testing.assert_array_equal(predict(served.loaded.model, rows), expected)
    assert served.lineage == before.lineage


def test_files_that_were_changed_are_not_taken(kept, monkeypatch):
    """The registry's digest says what they were: with the registry they are downloaded again."""
    place = mlflow.get_tracking_uri()
    (number,) = [path.name for path in kept.folder.iterdir() if path.is_dir()]
    model = kept.folder / number / "model.skops"
    content = model.read_bytes()
    model.write_bytes(content[:-1])
    later = without_registry(kept, monkeypatch)
    later.start()
    with pytest.raises((UserError, mlflow.MlflowException)):
        later.load(number)
    mlflow.set_tracking_uri(place)
    kept.load(number)
    assert model.read_bytes() == content


def test_nothing_is_kept_of_other_versions(kept):
    (kept.folder / "99").mkdir()
    kept.keep(kept.start())
    assert not (kept.folder / "99").exists()


def test_with_nothing_on_the_disk_it_does_not_start(kept, tmp_path, monkeypatch):
    kept.folder = tmp_path / "empty"
    with pytest.raises(mlflow.MlflowException):
        without_registry(kept, monkeypatch).start()
