"""The service follows the registry: it answers with the versions that are named there, loaded and checked.

A version that may not serve is refused, and the old ones go on answering; so they do while the
registry is away.
"""

import asyncio
import concurrent.futures
import functools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ...experiment.errors import sentence
from .metrics import Metrics
from .routing import Routes, VersionScorer, check_inputs
from .scoring import ServedVersion

MAX_RETRY_SECONDS = 300  # until a version that was refused is tried again
OLD_REQUEST_SECONDS = 60  # after a swap no request is left that began with an old version

log = logging.getLogger(__name__)


class Follower(Protocol):
    """What the watcher reads and changes of the service."""

    views: tuple[str, ...]
    loaded: dict[str, ServedVersion]
    refused: dict[str, str]
    follows_registry: bool
    routes: Routes
    main: VersionScorer
    metrics: Metrics

    def route(self, routes: Routes) -> None: ...

    def refresh(self) -> None: ...


class RegistryWatcher:
    """Lets a service answer with the versions that the registry names; refuses what may not serve.

    A refused version is tried again after twice the last pause: its files may only have been away.
    """

    def __init__(
        self,
        service: Follower,
        seconds: float,
        read_routes: Callable[[], Routes],
        load_version: Callable[[str], ServedVersion],
        keep: Callable[[Routes], None] = lambda routes: None,
    ) -> None:
        self.service, self.seconds = service, seconds
        self.read_routes, self.load_version, self.keep = read_routes, load_version, keep
        self.retry_at: dict[str, float] = {}  # refused version -> when it is tried again
        self.pauses: dict[str, float] = {}  # refused version -> seconds
        self.reading: asyncio.Future | None = None
        self.followed = False  # any routes yet

    async def follow(self) -> None:
        """Look at the registry and the online feature store every few seconds, for ever."""
        while True:
            await asyncio.sleep(self.seconds)
            if self.reading is None or self.reading.done():
                self.reading = in_thread(self.service.refresh)
            await self.follow_once()

    async def follow_once(self) -> None:
        """Load what the registry names now, and answer with it."""
        service = self.service
        try:
            routes = await in_thread(self.read_routes)
        except Exception as error:  # the registry is away: keep answering
            if service.follows_registry:
                log.warning("the registry cannot be followed: %s", sentence(error) or error)
            service.follows_registry = False
            return
        service.follows_registry = True
        await self.take(routes)

    async def take(self, routes: Routes) -> None:
        """Load the versions of these routes, and answer with them."""
        service = self.service
        changed = routes != service.routes or not self.followed
        self.followed = True
        for number in {*routes.versions()} - service.loaded.keys():
            if self.retry_at.get(number, 0) <= time.monotonic():
                changed |= await self._load(number, routes.main)
        if not changed:
            return
        service.route(routes)
        main = str(service.main.version)
        canary = routes.canary if routes.canary in service.loaded else None
        self.keep(routes._replace(main=main))
        log.info("version %s answers; canary %s: %g %%", main, canary, routes.share)
        for number in service.loaded.keys() - {main, *routes.versions()}:
            close = service.loaded.pop(number).batcher.close
            asyncio.get_running_loop().call_later(OLD_REQUEST_SECONDS, close)

    async def _load(self, number: str, main: str | None) -> bool:
        """Load a version; False if it is refused."""
        service = self.service
        try:
            served = await in_thread(functools.partial(self.load_version, number))
            if number != main:
                check_inputs(served.kinds, service.main.served.kinds, service.views)
        except Exception as error:
            pause = min(2 * self.pauses.get(number, self.seconds), MAX_RETRY_SECONDS)
            self.pauses[number], self.retry_at[number] = pause, time.monotonic() + pause
            if number not in service.refused:
                service.metrics.refused.inc()
            service.refused[number] = sentence(error) or f"{type(error).__name__}: {error}"
            log.error("version %s may not serve: %s", number, service.refused[number])
            return False
        service.loaded[number] = served
        service.refused.pop(number, None)
        return True


def in_thread(function: Callable[[], Any]) -> asyncio.Future:
    """`in_background`, to be awaited."""
    return asyncio.wrap_future(in_background(function))


def in_background(function: Callable[[], Any]) -> concurrent.futures.Future:
    """What a function returns, from a thread that the end of the process does not wait for."""
    result: concurrent.futures.Future = concurrent.futures.Future()

    def work() -> None:
        result.set_running_or_notify_cancel()
        try:
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return result
