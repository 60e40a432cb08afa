"""Parts of level 1 on many rows: data validation, the join of feature views, drift beside evidently.

Each time is that of the step's own functions on rows in memory; medians of three.
"""

import json
import sys
from collections.abc import Iterator

from project import INSIDE, PACKAGE, Line, Used, Workshop, measure, median

PEER = ("evidently==0.7.23", "pandas<3")  # it resolves with a pandas with which it cannot start
VALIDATE, DRIFT, JOIN = 0.3, 1.5, 0.2  # seconds
FASTER = 20  # than evidently


def inside(workshop: Workshop, part: str) -> tuple[dict, Used]:
    """What the script of inside/ found, and what its process took."""
    project = workshop.pipeline_project
    script = [INSIDE / "continuous_training.py", PACKAGE, part, workshop.folder]
    used = measure([project / ".venv/bin/python", *script], project)
    return json.loads(used.output.splitlines()[-1]), used


def validate(workshop: Workshop) -> Iterator[Line]:
    found, _ = inside(workshop, "validate")
    taken = median(found["seconds"])
    text = f"{taken:.2f} s (1e6 rows x {found['columns']} columns)"
    yield Line("validate", text, f"< {VALIDATE} s", taken < VALIDATE)


def join(workshop: Workshop) -> Iterator[Line]:
    seconds, _ = inside(workshop, "join")
    (one, taken), (two, more) = ((name, median(values)) for name, values in seconds.items())
    yield Line("join", f"{taken:.2f} s ({one}, 1e5 rows, 2e5 events)", f"< {JOIN} s", taken < JOIN)
    yield Line("join, two columns", f"{more:.2f} s ({two}: its entities are two columns)")


def drift(workshop: Workshop) -> Iterator[Line]:
    inside(workshop, "rows")
    peer = workshop.folder / "evidently"
    measure(["uv", "venv", "-q", "-p", sys.executable, peer], workshop.folder)
    install = ["uv", "pip", "install", "-q", "-p", peer, "--compile-bytecode", *PEER]
    measure(install, workshop.folder)
    script = [peer / "bin/python", INSIDE / "evidently_drift.py", workshop.folder]
    ours, theirs = [], []
    for _ in range(3):  # in turn, so that both sides see the same noise
        ours.append(inside(workshop, "drift"))
        used = measure(script, workshop.folder)
        theirs.append((json.loads(used.output.splitlines()[-1]), used))
    taken, other = (median([found["seconds"] for found, _ in side]) for side in (ours, theirs))
    text = f"{taken:.2f} s (5e5 against 5e5 rows x {ours[0][0]['of']}), {said(ours)}"
    yield Line("drift", text, f"< {DRIFT} s", taken < DRIFT)
    yield Line("drift, evidently", f"{other:.1f} s, {said(theirs)}")
    share = other / taken
    yield Line("drift, faster", f"x {share:.0f}", f">= x {FASTER}", share >= FASTER)


def said(side: list[tuple[dict, Used]]) -> str:
    found, used = side[0]
    return f"{found['drifted']:.0f} drifted, process {used.megabytes:.0f} MB"
