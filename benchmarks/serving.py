"""The prediction service under load, beside MLflow's own server and a route that does nothing.

One worker each, on the loopback, one after the other, three rounds; wrk asks. Figures are medians.
"Owner's derive" is the same service with a column more in `derive` of features.py. The generic way is the
same service without fast.py: any other model is scored like that. All of the service is on: the
prediction log, features from the online store, a canary for a tenth of the rows.
"""

import contextlib
import json
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

from project import INSIDE, PACKAGE, SLUG, Line, Workshop, environment, measure, median

ROUNDS, SECONDS = 3, 4
SWAPS, REQUESTS = 10, 20_000
WAYS = {"fast": "arrays", "owner's derive": "DataFrame and arrays", "generic": "DataFrame"}
# In `derive` of features.py, and what a copy has before it: a column of the owner's.
WEEKDAY = '        columns[f"{name}_weekday"]'
MONTH = '        columns[f"{name}_month"] = values.dt.month.astype("float64")\n'
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
    measure(["make", "materialize"], project)
    measure([python, INSIDE / "requests_for_wrk.py", PACKAGE, folder], project)
    generic, owner = (copy(project, folder / name) for name in ("generic", "owner"))
    (generic / PACKAGE / "delivery/service/fast.py").unlink()
    features = owner / PACKAGE / "features.py"
    text = features.read_text()
    assert text.count(WEEKDAY) == 1
    features.write_text(text.replace(WEEKDAY, MONTH + WEEKDAY))
    step = [python, "-m", PACKAGE]
    service = [*step, "service", "--env", "dev"]
    store = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}",
        "FEATURE_STORE_URL": f"sqlite:///{project / 'data/online.db'}",
        "PREDICTION_LOG_URL": f"sqlite:///{folder / 'predictions.db'}",
        "PREDICTION_JOURNAL": str(folder / "journal"),
    }
    peers = {
        "empty": ([python, INSIDE / "empty_route.py"], "predict", {}),
        "mlflow": ([*step, "serve", "--model", "1"], "invocations", {}),
        "fast": (service, "predict", store),
        "owner's derive": (service, "predict", {"PYTHONPATH": str(owner)} | store),
        "generic": (service, "predict", {"PYTHONPATH": str(generic)} | store),
    }
    found: dict[tuple[str, str], list[Load]] = {}
    for _ in range(ROUNDS):
        for name, (command, path, env) in peers.items():
            with started(command, project, env) as url:
                if name in WAYS:
                    with urllib.request.urlopen(f"{url}/health") as answer:
                        scoring = json.load(answer)["scoring"]
                    if scoring["way"] != WAYS[name]:
                        raise RuntimeError(f"{name}: {scoring}")
                for load in ["4"] if name == "mlflow" else LOADS:
                    script = folder / f"{path}-{LOADS[load][0]}.lua"
                    found.setdefault((name, load), []).append(ask(f"{url}/{path}", load, script))
    rate = {key: median([load.rate for load in loads]) for key, loads in found.items()}
    p99 = {key: median([load.p99 for load in loads]) for key, loads in found.items()}
    for name, times, share4, share64, rows, slow4, slow64 in (
        ("fast", 35, 0.35, 0.45, 45_000, 10, 50),
        ("owner's derive", 15, None, None, None, None, None),
        ("generic", 4, None, 0.15, 18_000, None, None),
    ):
        yield share(f"{name}, 4 over mlflow", rate[name, "4"], rate["mlflow", "4"], times)
        yield share(f"{name}, 4 over empty", rate[name, "4"], rate["empty", "4"], share4)
        yield share(f"{name}, 64 over empty", rate[name, "64"], rate["empty", "64"], share64)
        many = 100 * rate[name, "100 rows"]
        ok = None if rows is None else many >= rows
        limited = "" if rows is None else f">= {rows:,}"
        yield Line(f"{name}, 100 rows", f"{many:,.0f} rows/s", limited, ok)
        for load, limit in (("4", slow4), ("64", slow64)):
            value = p99[name, load]
            limited = "" if limit is None else f"< {limit} ms"
            verdict = None if limit is None else value < limit
            yield Line(f"{name}, {load}, p99", f"{value:.1f} ms", limited, verdict)

    about = project / "delivery.yaml"
    about.write_text(about.read_text().replace("follow: 5 ", "follow: 1 "))
    env = {**store, "PYTHONPATH": str(project / "src")}
    with started(service, project, env) as url:
        yield swaps(python, project, url, folder / "predict-1.lua")
    supervise = [python, "-m", f"{PACKAGE}.delivery.service.supervisor", "--env", "dev"]
    with started(supervise, project, env) as url:
        yield restart(url)


def copy(project: Path, folder: Path) -> Path:
    """The project's code and settings in another folder; returns what PYTHONPATH must name."""
    shutil.copytree(project / "src", folder / "src")
    for name in ("params.yaml", "delivery.yaml"):
        shutil.copy(project / name, folder)
    return folder / "src"


def swaps(python: Path, project: Path, url: str, script: Path) -> Line:
    """The alias moves between two versions while wrk asks."""
    words = ["wrk", "-t1", "-c4", f"-d{SWAPS * 4}s", "-s", str(script), f"{url}/predict"]
    asking = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    move = "from flight_delays.experiment import tracking; c = tracking.connect(); import sys, time, json\n"
    move += "import urllib.request as u\nfor k in range(int(sys.argv[2])):\n"
    move += f" c.set_registered_model_alias({SLUG!r}, 'dev', str(2 - k % 2))\n"
    move += " while json.load(u.urlopen(sys.argv[1] + '/ready'))['version'] != 2 - k % 2:\n"
    move += "  time.sleep(0.05)\n"
    measure([python, "-c", move, url, str(SWAPS)], project)
    said = asking.communicate()[0]
    failed = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", said))
    failed += sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", said))
    asked = int(re.search(r"(\d+) requests in", said)[1])
    text = f"{failed} of {asked:,} requests failed while the alias moved {SWAPS} times"
    return Line("swap under load", text, f"0 of >= {REQUESTS:,}", failed == 0 and asked >= REQUESTS)


def restart(url: str) -> Line:
    """The service is killed; who looks after it starts it again."""
    ready = json.load(urllib.request.urlopen(f"{url}/ready"))
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            number, _, rest = status.read_text().partition(" (")
            if int(rest.rpartition(")")[2].split()[1]) == ready["parent"]:
                os.kill(int(number), 9)
    start = time.monotonic()
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/ready", timeout=2).close()
            break
        time.sleep(0.02)
    seconds = time.monotonic() - start
    return Line("restart after kill -9", f"{seconds:.1f} s", "< 5 s", seconds < 5)


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
