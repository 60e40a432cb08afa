"""What a deployment is: a release and a model version at a target, and whether it answers."""

import logging
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import httpx

from ...experiment import reports
from ...experiment.markdown import plain

logging.getLogger("httpx").setLevel(logging.WARNING)  # else it logs a line for each request


class Release(NamedTuple):
    """What an environment runs: the digest of the code, and the version of the model."""

    image: str
    version: str


class Endpoint(NamedTuple):
    """An address at which a release answers, and its secret: requests with it are not logged."""

    url: str
    check: str


class Target(Protocol):
    """Where the releases of an environment run."""

    url: str

    def current(self) -> Release | None:
        """What runs now; None if nothing does."""

    def trial(self, release: Release, seconds: float) -> AbstractContextManager[Endpoint | None]:
        """Let a release answer with its version beside what runs, at an address that nobody else knows.

        None if the release is one of version 0.1.0, which cannot. UserError if it is not ready in so many
        seconds.
        """

    def roll_out(self, release: Release, seconds: float) -> Endpoint:
        """Replace what runs by this release; UserError if it is not ready in so many seconds."""

    def note_version(self, version: str) -> None:
        """Write down which version answers now, after a canary: no process starts again for it."""

    def stop(self) -> None:
        """Stop what runs there."""


def ready(url: str) -> dict:
    """What /ready of the service says; {} if no service is ready there."""
    try:
        return httpx.get(f"{url}/ready", timeout=5).raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return {}


def reason(url: str) -> str:
    """Why a service that answers is not ready; nothing if none answers there."""
    try:
        return f": {httpx.get(f'{url}/ready', timeout=5).json()['detail']}"
    except (httpx.HTTPError, ValueError, KeyError):
        return ""


def write_report(record: dict) -> None:
    """Write reports/deployment-ENV.json, and .md to read."""
    name = f"deployment-{record['environment']}"
    reports.write_json(f"{name}.json", record)
    title = f"# {record['decision']}: {record['environment']}, version {record['version']}"
    lines = [title, "", f"Release `{record['image']}`", ""]
    lines += [f"- {plain(text)}" for text in record["checks"]]
    reports.write(f"{name}.md", "\n".join([*lines, ""]))
