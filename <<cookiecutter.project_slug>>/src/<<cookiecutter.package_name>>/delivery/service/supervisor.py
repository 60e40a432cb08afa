"""Keep a service running on this machine: who dies is started again, who cannot start is not.

The target `local` runs this module with `--env dev --port 8001`, the arguments of the step `service`;
for a container Kubernetes does the same. All that the service imports
is imported here, once: so a new process of it answers in half the time.
"""

import logging
import multiprocessing
import os
import signal
import sys
import time
from typing import Any

from ...experiment.cli import imported
from ...experiment.cli import main as step
from ...experiment.redaction import guard

PARENT = "SERVICE_PARENT"  # the variable that tells a service who looks after it
YOUNG = 10  # seconds: what fails sooner than that at first will not do better the next time
PAUSE = 30  # seconds at most between two starts
# Elsewhere libraries of the system do not bear a fork.
PROCESSES: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")

log = logging.getLogger(__name__)


def serve(arguments: list[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    sys.exit(step(["service", *arguments]))


def start(arguments: list[str]) -> Any:
    child = PROCESSES.Process(target=serve, args=(arguments,))
    child.start()
    return child


def main(arguments: list[str]) -> int:
    stopped, first, again = False, True, -1
    os.environ |= {PARENT: str(os.getpid()), "MLFLOW_DISABLE_TELEMETRY": "true"}
    imported("delivery.service.app")
    child = start(arguments)

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while True:
        begin = time.monotonic()
        child.join()
        lived, code = time.monotonic() - begin, child.exitcode or 0
        if stopped or (first and lived < YOUNG and code > 0):
            return code
        again = again + 1 if lived < YOUNG else 0
        pause = min(2**again - 1, PAUSE)
        log.error("the service ended with %d: it is started again in %d s", code, pause)
        time.sleep(pause)
        if stopped:
            return code
        child, first = start(arguments), False


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    guard()
    sys.exit(main(sys.argv[1:]))
