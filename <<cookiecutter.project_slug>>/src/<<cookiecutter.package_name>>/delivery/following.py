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

from ..errors import sentence
from .arms import Routes, fits
from .scoring import Served

if TYPE_CHECKING:
    from .service import Service

AGAIN = 300  # seconds at most until a version that was refused is tried again
LATER = 60  # seconds after which no request is left that began with a version of before

log = logging.getLogger(__name__)


async def follow(
    service: "Service",
    find: Callable[[], Routes],
    serve: Callable[[str], Served],
    seconds: float,
) -> None:
    """Answer with the versions that the registry names, and refuse what may not serve.

    That is tried again, ever more seldom: its files may only have been away.
    """
    again: dict[str, float] = {}  # of what was refused: when it is tried again
    pauses: dict[str, float] = {}
    reading: asyncio.Future | None = None
    while True:
        await asyncio.sleep(seconds)
        if service.online and service.looked_up and (reading is None or reading.done()):
            reading = apart(service.online.refresh)
        try:
            wanted = await apart(find)
        except Exception as error:  # the registry is away: keep answering
            if service.lost is None:
                log.warning("the registry cannot be followed: %s", sentence(error) or error)
            service.lost = sentence(error) or repr(error)
            continue
        service.lost = None
        changed = wanted != service.routes
        for number in {*wanted.versions()} - service.loaded.keys():
            if again.get(number, 0) > time.monotonic():
                continue
            try:
                served = await apart(functools.partial(serve, number))
                if number != wanted.main:
                    fits(served.kinds, service.served.kinds, service.views)
            except Exception as error:
                pauses[number] = min(2 * pauses.get(number, seconds), AGAIN)
                again[number] = time.monotonic() + pauses[number]
                if number not in service.refused:
                    service.metrics.refused.inc()
                service.refused[number] = sentence(error) or f"{type(error).__name__}: {error}"
                log.error("version %s may not serve: %s", number, service.refused[number])
            else:
                service.loaded[number], changed = served, True
                service.refused.pop(number, None)
        if not changed:
            continue
        service.arrange(wanted)
        ready = service.served.version, service.canary and service.canary.version, wanted.share
        log.info("version %s answers; canary %s, of a share of %g %%", *ready)
        used = {str(service.served.version), *wanted.versions()}
        for number in service.loaded.keys() - used:
            asyncio.get_running_loop().call_later(LATER, service.loaded.pop(number).gather.close)


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
