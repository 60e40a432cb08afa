"""A sample trained here and in another checkout: what does a change do to the metrics?

The step `compare --against ../main` writes reports/compare.md; ci.yml does so for a pull
request. Both are fitted and tested on the same rows. It is a smoke test on few of them, not the gate.
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from ...experiment import reports
from ...experiment.cli import PACKAGE
from ...experiment.errors import UserError
from ...experiment.params import ROOT, load
from ...experiment.redaction import redact

# Runs on the code and the settings of a checkout, which may be older than this module.
SAMPLE = """
import json, sys
from {package} import data
try:
    from {package}.experiment import params
    from {package}.experiment.labelled_rows import load as load_labelled
    from {package}.experiment.train import fit, score
except ImportError:  # of version 0.1.0 of the template
    from {package} import params
    from {package}.data import load_labelled
    from {package}.train import fit, score
source, through, rows = json.loads(sys.argv[1])
p = params.load()
p = p.model_copy(update=dict(data=p.data.model_copy(update=dict(source=source, through=through))))
frame = load_labelled(p)
frame = frame.sample(min(rows, len(frame)), random_state=0).sort_index()
train, test = data.split(frame, p)
print(json.dumps([len(frame), score(fit(train, p), test, p)]))
"""

log = logging.getLogger(__name__)


def sample(folder: Path, rows: int) -> tuple[int, dict[str, float]]:
    """Train on a sample of this checkout's data with the code of a folder; returns its rows and metrics.

    Raises UserError if that fails there.
    """
    data = load().data
    arguments = json.dumps([str(ROOT / data.source), data.through, rows])
    code = SAMPLE.format(package=PACKAGE)
    command = [sys.executable, "-c", code, arguments]
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = redact(done.stderr.strip())[-500:]
        raise UserError(f"the sample cannot be trained in {folder}: {reason}")
    count, metrics = json.loads(done.stdout.splitlines()[-1])
    return count, metrics


def run(against: str, rows: int) -> None:
    (count, now), (_, before) = sample(ROOT, rows), sample(Path(against).resolve(), rows)
    lines = [f"| {count:,} rows | before | now | change |", "|---|---|---|---|"]
    for name, value in now.items():
        old = before.get(name, float("nan"))
        bold = "**" if name == load().evaluate.metric else ""
        lines.append(f"| {bold}{name}{bold} | {old:.4f} | {value:.4f} | {value - old:+.4f} |")
    reports.write("compare.md", "\n".join([*lines, ""]))
    for line in lines:
        log.info("%s", line)
