"""Restarts the service on this machine; gives up if its first start fails within 10 s.

A release that is tried listens on a port of its own first, until SIGUSR1 ends the trial.

The target `local` runs this module with `--env dev --port 8001`, the arguments of the step `service`;
for a container Kubernetes does the same. The supervisor imports the service's modules once, so a
restarted service answers in half the time.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import time
from typing import Any

from ...experiment.cli import imported
from ...experiment.cli import main as run_step
from ...experiment.redaction import guard
from ..release.releases import TRIAL_PORT, VERSION

PARENT = "SERVICE_PARENT"  # the environment variable with the supervisor's process id
MIN_UPTIME_SECONDS = 10  # a first start that fails sooner will fail again
MAX_PAUSE_SECONDS = 30  # between two starts
# On other systems than Linux, some system libraries fail after a fork.
PROCESSES: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")

log = logging.getLogger(__name__)


def serve(arguments: list[str]) -> None:
    """Run the step `service` in this process, and exit."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    sys.exit(run_step(["service", *arguments]))


def start(arguments: list[str]) -> Any:
    """A process that serves."""
    if port := os.environ.get(TRIAL_PORT):
        arguments = [*arguments, "--port", port]
    child = PROCESSES.Process(target=serve, args=(arguments,))
    child.start()
    return child


async def end_with(parent: int) -> None:
    """End this process within a second of its supervisor's end."""
    while os.getppid() == parent:
        await asyncio.sleep(1)
    signal.raise_signal(signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code of the service."""
    stopped = trial_ended = False
    first = True
    quick_ends = 0  # of the last starts, one after the other
    os.environ |= {PARENT: str(os.getpid()), "MLFLOW_DISABLE_TELEMETRY": "true"}
    imported("delivery.service.app")
    child = start(arguments)

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        child.terminate()

    def end_trial(*_: object) -> None:
        nonlocal trial_ended
        trial_ended = True
        for variable in (TRIAL_PORT, VERSION):
            os.environ.pop(variable, None)
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGUSR1, end_trial)
    while True:
        begin = time.monotonic()
        child.join()
        uptime = time.monotonic() - begin
        code = child.exitcode or 0
        if trial_ended and not stopped:
            trial_ended = False
            child = start(arguments)
            continue
        if stopped or (first and uptime < MIN_UPTIME_SECONDS and code > 0):
            return code
        first = False
        quick_ends = quick_ends + 1 if uptime < MIN_UPTIME_SECONDS else 0
        pause = min(2 ** max(quick_ends - 1, 0) - 1, MAX_PAUSE_SECONDS)
        log.error("the service ended with %d: it is started again in %d s", code, pause)
        time.sleep(pause)
        if stopped:
            return code
        child = start(arguments)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    guard()
    sys.exit(main(sys.argv[1:]))
