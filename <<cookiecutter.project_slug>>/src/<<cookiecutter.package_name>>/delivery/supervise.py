"""Keep a service running on this machine: who dies is started again, who cannot start is not.

The target `local` runs `python -m << cookiecutter.package_name >>.delivery.supervise --env dev --port 8001`, which runs the
step `service` with these arguments; for a container Kubernetes does the same.
"""

import logging
import os
import signal
import subprocess
import sys
import time

YOUNG = 10  # seconds: what fails sooner than that at first will not do better the next time
PAUSE = 30  # seconds at most between two starts
PARENT = "SERVICE_PARENT"  # the variable that tells a service who looks after it

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    command = [sys.executable, "-m", __package__.partition(".")[0], "service", *arguments]
    environment, stopped, pause, first = os.environ | {PARENT: str(os.getpid())}, False, 0, True
    child = subprocess.Popen(command, env=environment)

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while True:
        start = time.monotonic()
        code = child.wait()
        lived = time.monotonic() - start
        if stopped or (first and lived < YOUNG and code > 0):
            return code
        pause = min(2 * pause + 1, PAUSE) if lived < YOUNG else 0
        log.error("the service ended with %d: it is started again in %d s", code, pause)
        time.sleep(pause)
        if stopped:
            return code
        child, first = subprocess.Popen(command, env=environment), False


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main(sys.argv[1:]))
