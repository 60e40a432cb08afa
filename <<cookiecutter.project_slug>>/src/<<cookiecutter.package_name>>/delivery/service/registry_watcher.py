"""The service follows the registry: it answers with the versions that this names, loaded and checked.

What may not serve is refused, and what answers goes on; so it does while the registry is away.
"""

import asyncio
import concurrent.futures
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...experiment.errors import sentence
from .routing import Routes, fits
from .scoring import ServedVersion

if TYPE_CHECKING:
    from .app import Service

AGAIN = 300  # seconds at most until a version that was refused is tried again
LATER = 60  # seconds after which no request is left that began with a version of before

log = logging.getLogger(__name__)


class Following:
    """Lets a service answer with the versions that the registry names; refuses what may not serve.

    That is tried again, ever more seldom: its files may only have been away.
    """

    def __init__(
        self,
        service: "Service",
        find: Callable[[], Routes],
        serve: Callable[[str], ServedVersion],
        seconds: float,
    ) -> None:
        self.service, self.find, self.serve, self.seconds = service, find, serve, seconds
        self.again: dict[str, float] = {}  # of what was refused: when it is tried again
        self.pauses: dict[str, float] = {}
        self.reading: asyncio.Future | None = None

    async def go_on(self) -> None:
        while True:
            await asyncio.sleep(self.seconds)
            if self.reading is None or self.reading.done():
                self.reading = apart(self.service.refresh)
            await self.look()

    async def look(self) -> None:
        """Follow the registry once."""
        service = self.service
        try:
            wanted = await apart(self.find)
        except Exception as error:  # the registry is away: keep answering
            if service.lost is None:
                log.warning("the registry cannot be followed: %s", sentence(error) or error)
            service.lost = "not followed"  # why is in the log: anybody may read /health
            return
        service.lost = None
        changed = wanted != service.routes
        for number in {*wanted.versions()} - service.loaded.keys():
            if self.again.get(number, 0) <= time.monotonic():
                changed |= await self._load(number, wanted.main)
        if not changed:
            return
        service.arrange(wanted)
        ready = service.served.version, service.canary and service.canary.version, wanted.share
        log.info("version %s answers; canary %s, of a share of %g %%", *ready)
        used = {str(service.served.version), *wanted.versions()}
        for number in service.loaded.keys() - used:
            asyncio.get_running_loop().call_later(LATER, service.loaded.pop(number).batcher.close)

    async def _load(self, number: str, main: str | None) -> bool:
        """Whether this version may serve: then it is loaded."""
        service = self.service
        try:
            served = await apart(functools.partial(self.serve, number))
            if number != main:
                fits(served.kinds, service.served.kinds, service.views)
        except Exception as error:
            self.pauses[number] = min(2 * self.pauses.get(number, self.seconds), AGAIN)
            self.again[number] = time.monotonic() + self.pauses[number]
            if number not in service.refused:
                service.metrics.refused.inc()
            service.refused[number] = sentence(error) or f"{type(error).__name__}: {error}"
            log.error("version %s may not serve: %s", number, service.refused[number])
            return False
        service.loaded[number] = served
        service.refused.pop(number, None)
        return True


def apart(function: Callable[[], Any]) -> asyncio.Future:
    """What a function returns, in a thread that the end of the process does not wait for."""
    answer: concurrent.futures.Future = concurrent.futures.Future()

    def work() -> None:
        answer.set_running_or_notify_cancel()
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return asyncio.wrap_future(answer)


async def attend(parent: int) -> None:
    """End this process once nobody looks after it any more."""
    while os.getppid() == parent:
        await asyncio.sleep(1)
    signal.raise_signal(signal.SIGTERM)
