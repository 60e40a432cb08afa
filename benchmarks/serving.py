"""The prediction service under load, beside MLflow's own server and a route that does nothing.

One worker each, on the loopback, one after the other, three rounds; wrk asks. Figures are medians. The
generic way is the same service without fast.py, so that any other model would be scored like that.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from project import INSIDE, PACKAGE, Line, Workshop, environment, measure, median

ROUNDS, SECONDS = 3, 4
LOADS = {"4": (1, 4), "64": (1, 64), "100 rows": (100, 4)}  # rows a request, connections


class Load(NamedTuple):
    """Requests/s, and the time that the slowest hundredth takes (ms)."""

    rate: float
    p99: float


def run(workshop: Workshop) -> Iterator[Line]:
    if shutil.which("wrk") is None:
        yield Line("service", "wrk is not installed: apt-get install wrk")
        return
    project = workshop.delivery_project
    python, folder = project / ".venv/bin/python", workshop.folder / "serving"
    folder.mkdir()
    measure([python, INSIDE / "requests_for_wrk.py", PACKAGE, folder], project)
    other = folder / "generic/src"
    shutil.copytree(project / "src", other, ignore=shutil.ignore_patterns("fast.py"))
    shutil.copy(project / "params.yaml", other.parent)
    shutil.copy(project / "delivery.yaml", other.parent)
    step = [python, "-m", PACKAGE]
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}"}
    peers = {
        "empty": ([python, INSIDE / "empty_route.py"], "predict", {}),
        "mlflow": ([*step, "serve", "--model", "1"], "invocations", {}),
        "fast": ([*step, "service", "--env", "dev"], "predict", {}),
        "generic": (
            [*step, "service", "--env", "dev"],
            "predict",
            {"PYTHONPATH": str(other)} | store,
        ),
    }
    found: dict[tuple[str, str], list[Load]] = {}
    for _ in range(ROUNDS):
        for name, (command, path, env) in peers.items():
            with started(command, project, env) as url:
                for load in ["4"] if name == "mlflow" else LOADS:
                    script = folder / f"{path}-{LOADS[load][0]}.lua"
                    found.setdefault((name, load), []).append(ask(f"{url}/{path}", load, script))
    rate = {key: median([load.rate for load in loads]) for key, loads in found.items()}
    p99 = {key: median([load.p99 for load in loads]) for key, loads in found.items()}
    for name, times, share4, share64, rows, slow4, slow64 in (
        ("fast", 35, 0.35, 0.45, 45_000, 10, 50),
        ("generic", 4, None, 0.15, 18_000, None, None),
    ):
        yield share(f"{name}, 4 over mlflow", rate[name, "4"], rate["mlflow", "4"], times)
        yield share(f"{name}, 4 over empty", rate[name, "4"], rate["empty", "4"], share4)
        yield share(f"{name}, 64 over empty", rate[name, "64"], rate["empty", "64"], share64)
        many = 100 * rate[name, "100 rows"]
        ok = many >= rows
        yield Line(f"{name}, 100 rows", f"{many:,.0f} rows/s", f">= {rows:,}", ok)
        for load, limit in (("4", slow4), ("64", slow64)):
            value = p99[name, load]
            limited = "" if limit is None else f"< {limit} ms"
            verdict = None if limit is None else value < limit
            yield Line(f"{name}, {load}, p99", f"{value:.1f} ms", limited, verdict)


def share(name: str, own: float, peer: float, limit: float | None) -> Line:
    text = f"{own / peer:.2f}: {own:,.0f} requests/s against {peer:,.0f}"
    ok = None if limit is None else own / peer >= limit
    return Line(name, text, "" if limit is None else f">= {limit}", ok)


@contextlib.contextmanager
def started(command: list, project: Path, env: dict[str, str]) -> Iterator[str]:
    """A server on a free port, ready; ended with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(word) for word in [*command, "--port", str(port)]]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    changed = environment(OMP_NUM_THREADS="1", **env)
    process = subprocess.Popen(words, cwd=project, env=changed, start_new_session=True, **quiet)
    try:
        until = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"{' '.join(words)} does not answer")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def ask(url: str, load: str, script: Path) -> Load:
    connections = LOADS[load][1]
    words = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", script, url]
    said = subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(f"{url}: {said}")
    rate = float(re.search(r"Requests/sec: *([\d.]+)", said)[1])
    value, unit = re.search(r"99% *([\d.]+)(us|ms|s)", said).groups()
    return Load(rate, float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit])
