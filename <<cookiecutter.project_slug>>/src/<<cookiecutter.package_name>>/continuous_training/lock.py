"""The lock of a project: two runs of the pipeline in one folder would spoil each other's files."""

import contextlib
import logging
from collections.abc import Iterator

import filelock

from ..experiment.params import ROOT

LOCK = ".dvc/tmp/retrain.lock"

log = logging.getLogger(__name__)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the project for as long as the block, once whoever holds it is done (or dead)."""
    (ROOT / LOCK).parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(ROOT / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        log.warning("another run of the pipeline is at work here: waiting until it is done")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
