"""A standalone Spark cluster on this machine, for a test and a benchmark: a master and its workers.

They listen on the loopback only, have free ports, and are ended one by one.
"""

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def cluster(
    environment: Path, folder: Path, env: Mapping[str, str], workers: int = 2
) -> Iterator[dict[str, str]]:
    """The variables that name it to a step; `folder` gets its logs, and `worker-0` and so on.

    Each worker has one core. Raises RuntimeError if it does not start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page, master = free_port(), f"spark://{HERE}:{free_port()}"
    place = ["--host", HERE, "--port", master.rpartition(":")[2], "--webui-port", page]
    commands = [["master.Master", *place]]
    for number in range(workers):
        place = ["--host", HERE, "--webui-port", free_port()]
        place += ["--work-dir", folder / f"worker-{number}"]
        commands.append(["worker.Worker", *place, "--cores", 1, "--memory", "1g", master])
    (launcher,) = environment.glob("lib/python*/site-packages/pyspark/bin/spark-class")
    processes: list[subprocess.Popen] = []
    try:
        for number, (name, *words) in enumerate(commands):
            command = [launcher, f"org.apache.spark.deploy.{name}", *map(str, words)]
            own = {**env, "SPARK_LOCAL_IP": HERE}
            with (folder / f"{number}.log").open("w") as log:
                output = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
                processes.append(subprocess.Popen(command, cwd=folder, env=own, **output))
        until = time.monotonic() + 120
        while state(page).get("aliveworkers") != workers:
            if time.monotonic() > until or any(p.poll() is not None for p in processes):
                raise RuntimeError(f"the cluster does not start: see {folder}")
            time.sleep(0.2)
        yield {"SPARK_LOCAL_IP": HERE, "SPARK_MASTER": master}
    finally:
        for process in reversed(processes):
            process.terminate()  # a worker ends its executors
        for process in processes:
            process.wait(30)


def state(page: int) -> dict:
    """What the master tells of itself; nothing as long as it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{HERE}:{page}/json/", timeout=2) as answer:
            return json.load(answer)
    except OSError:
        return {}
