"""The step predict against `predict_proba` of the same model on the same frame in memory.

The step's rows/s are over its time for all rows (read, check, score, write): the whole process less
that of a file of a hundred rows, which is interpreter, imports, store and loading the model. Of the
rounds, the fastest counts, on either side: the others say how busy the machine was.
"""

import json
from collections.abc import Iterator

from project import Line, Used, Workshop

ROUNDS = {1_000_000: 3, 10_000_000: 1}  # of the step; the peer has two calls in each
SHARE = 0.8  # of the bare rows/s
MEMORY = 1500  # MB
GROWTH = 1.5  # of memory, from the smaller file to the larger one


def run(workshop: Workshop) -> Iterator[Line]:
    workshop.model  # noqa: B018 -- made before anything is measured
    start, peaks = [], []
    for rows, rounds in ROUNDS.items():
        path = workshop.flights(rows)
        whole, bare = [], []
        for _ in range(rounds):  # in turn, so that both sides see the same noise
            start.append(score(workshop, 100).seconds)
            used = score(workshop, rows)
            whole.append(used.seconds)
            peaks.append(used.megabytes)
            bare += json.loads(workshop.bare("predict.py", path).output.splitlines()[-1])
        step, peer = min(whole) - min(start), min(bare)
        share = peer / step
        name = f"predict {rows:.0e}".replace("e+0", "e")
        speeds = f"{rows / step / 1000:.0f}k rows/s against {rows / peer / 1000:.0f}k"
        process = f"whole process {min(whole):.1f} s"
        yield Line(name, f"{share:.2f}: {speeds}, {process}", f">= {SHARE}", share >= SHARE)
        yield Line(f"{name} memory", f"{peaks[-1]:.0f} MB", f"< {MEMORY} MB", peaks[-1] < MEMORY)
    growth = peaks[-1] / peaks[0]
    text = f"x {growth:.2f} from 1e6 to 1e7 rows"
    yield Line("predict memory growth", text, f"< x {GROWTH}", growth < GROWTH)


def score(workshop: Workshop, rows: int) -> Used:
    """Run the step on the flights."""
    output = workshop.folder / "scores.parquet"
    return workshop.step("predict", "--input", workshop.flights(rows), "--output", output)
