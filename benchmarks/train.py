"""`make train` on January to March against the bare fit of the same pipeline on the same rows.

Counted for the step: the whole of `make train` as the shell sees it: make, interpreter, imports,
reading and checking the batches, fit, metrics on both sides of the split, all that MLflow keeps.
Counted for the peer: the whole of a process that imports the step's modules and fits the same
pipeline on the same rows, less its reading. So reading counts as the step's overhead.
"""

import json
from collections.abc import Iterator

from project import Line, Workshop, measure, median

LIMIT = 3.0  # seconds


def run(workshop: Workshop) -> Iterator[Line]:
    project = workshop.project
    workshop.bare("fit.py")  # the first import compiles: that belongs to nothing-to-model
    steps, bare, reading, fits = [], [], [], []
    for _ in range(4):  # in turn, so that both sides see the same noise
        steps.append(measure(["make", "train"], project).seconds)
        peer = workshop.bare("fit.py")
        parts = json.loads(peer.output.splitlines()[-1])
        bare.append(peer.seconds - parts["read"])
        reading.append(parts["read"])
        fits.append(parts["fit"])
    peer, fit = median(bare), median(fits)
    against = f"imports {peer - fit:.1f} + fit {fit:.1f} (reading {median(reading):.1f})"
    over = median(steps[1:]) - peer
    text = f"{over:+.1f} s: {median(steps[1:]):.1f} against {against}"
    yield Line("train", text, f"< {LIMIT:.0f} s", over < LIMIT)
    text = f"{steps[0] - peer:+.1f} s: the run before, which may make the store"
    yield Line("train, first", text)
