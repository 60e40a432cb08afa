"""The versions and routes of an environment: in the registry, and on the disk for when that is away.

What the service answers with is kept below MODEL_CACHE: the files of each version, which are taken only if
their digest is the registry's, and routes.json. A service that starts while the registry is away answers
with that, as the one before it did.
"""

import contextlib
import functools
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag

from ...experiment.params import Params
from ...experiment.registry import FILES, download, is_recorded, require_version
from .registry_watcher import in_background
from .routing import Routes, read_routes
from .scoring import ServedVersion

START_SECONDS = 10  # that a start waits for the registry, if there is something on the disk

log = logging.getLogger(__name__)


class VersionStore:
    """The versions and routes of an environment; `folder` is its own on the disk.

    A release that is tried answers with the version `fixed`, whatever the registry says, and keeps nothing.
    """

    def __init__(self, env: str, params: Params, folder: Path, fixed: str | None = None) -> None:
        self.name, self.env, self.params = params.register_.name, env, params
        self.fixed = fixed
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tags: dict[str, dict[str, str]] = {}  # of the versions that were loaded
        self.kept: dict[str, Any] = self._read()  # what a process before this one kept
        self.away = False

    @functools.cached_property
    def client(self) -> mlflow.MlflowClient:
        """The registry's; made when it is needed, for a database that is away is tried for minutes."""
        return mlflow.MlflowClient()

    def start(self) -> Routes:
        """The routes of now, or the kept ones if the registry is away; UserError if nothing may answer."""
        try:
            routes = in_background(self.routes).result(START_SECONDS if self.kept else None)
        except Exception as error:
            if not self.kept:
                raise
            self.away = True
            routes = Routes(*self.kept["routes"])
            log.warning(
                "the registry is away: version %s answers, as before: %s", routes.main, error
            )
        if routes.main is None:
            require_version(self.client, self.name, self.env)  # it says what to do
        return routes

    def routes(self) -> Routes:
        """The routes in the registry."""
        if self.fixed:
            return Routes(self.fixed)
        routes = read_routes(self.client, self.name, self.env)
        self.away = False
        return routes

    def load(self, number: str) -> ServedVersion:
        """A version that may serve; UserError if it may not."""
        if self.away and number in self.kept["tags"]:
            tags = [ModelVersionTag(*tag) for tag in self.kept["tags"][number].items()]
            version = ModelVersion(self.name, number, 0, tags=tags)
        else:
            version = require_version(self.client, self.name, number)
        served = ServedVersion(version, self.params, self._files(version))
        self.tags[number] = dict(version.tags)
        return served

    def keep(self, routes: Routes) -> None:
        """Let a service that starts later have these routes; other versions leave the disk."""
        if self.fixed:
            return
        versions = {
            number: self.tags[number] for number in routes.versions() if number in self.tags
        }
        self.kept = {"routes": list(routes), "tags": versions}
        part = self.folder / f"{os.getpid()}.part"
        try:
            part.write_text(json.dumps(self.kept), encoding="utf-8")
            os.replace(part, self.folder / "routes.json")
        except OSError as error:
            log.warning("what answers cannot be kept on the disk: %s", error)
            return
        for path in self.folder.iterdir():
            if path.is_dir() and path.name.isdigit() and path.name not in versions:
                shutil.rmtree(path, ignore_errors=True)

    def _files(self, version: ModelVersion) -> Path:
        """The folder with the files of a version, as its digest says."""
        place = self.folder / str(version.version)
        there = all((place / name).is_file() for name in (*FILES, "input_example.json"))
        if not there or not is_recorded(place, version.tags.get("model_sha256", "")):
            with tempfile.TemporaryDirectory(dir=self.folder) as folder:
                files = download(version, Path(folder))
                shutil.rmtree(place, ignore_errors=True)
                with contextlib.suppress(OSError):  # another process was quicker
                    os.replace(files, place)
        return place

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads((self.folder / "routes.json").read_text(encoding="utf-8"))
            if {"routes", "tags"} <= kept.keys():
                return kept
        return {}
