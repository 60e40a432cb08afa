"""What a deployment is: a release and a model version at a target, and whether it answers."""

import logging
from typing import NamedTuple, Protocol

import httpx

logging.getLogger("httpx").setLevel(logging.WARNING)  # it says a line a request


class Release(NamedTuple):
    """What an environment runs: the digest of the code, and the version of the model."""

    image: str
    version: str


class Target(Protocol):
    url: str
    check: str  # a secret of what was rolled out last: requests with it are not logged

    def current(self) -> Release | None:
        """What runs now, if anything."""

    def roll_out(self, release: Release, seconds: float) -> None:
        """Let this run in place of what runs now; UserError if it is not ready in time."""

    def stop(self) -> None:
        """Let nothing run there."""


def ready(url: str) -> dict:
    """What answers there, and is ready; nothing if nothing is."""
    try:
        return httpx.get(f"{url}/ready", timeout=5).raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return {}
