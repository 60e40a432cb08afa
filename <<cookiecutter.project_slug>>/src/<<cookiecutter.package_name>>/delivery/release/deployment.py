"""What a deployment is: a release and a model version at a target, and whether it answers."""

import logging
from typing import NamedTuple, Protocol

import httpx

logging.getLogger("httpx").setLevel(logging.WARNING)  # else it logs a line for each request


class Release(NamedTuple):
    """What an environment runs: the digest of the code, and the version of the model."""

    image: str
    version: str


class Target(Protocol):
    """Where the releases of an environment run."""

    url: str
    check: str  # the secret of the last roll-out: requests with it are not logged

    def current(self) -> Release | None:
        """What runs now; None if nothing does."""

    def roll_out(self, release: Release, seconds: float) -> None:
        """Replace what runs by this release; UserError if it is not ready in so many seconds."""

    def stop(self) -> None:
        """Stop what runs there."""


def ready(url: str) -> dict:
    """What /ready of the service says; {} if no service is ready there."""
    try:
        return httpx.get(f"{url}/ready", timeout=5).raise_for_status().json()
    except (httpx.HTTPError, ValueError):
        return {}
