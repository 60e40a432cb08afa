"""How time and memory of the steps and stages grow with the rows: information, without a limit.

The exponent k is that of constant + factor * rows ** k through the three points, so that imports
and the store do not count: 1 is proportional to the rows, 0 is constant.
"""

import math
import shutil
from collections.abc import Iterator

import retraining
from predict import score
from project import PACKAGE, Line, Used, Workshop, measure

ROWS = (10_000, 100_000, 1_000_000)  # ten times more each: `exponent` relies on it


def run(workshop: Workshop) -> Iterator[Line]:
    workshop.model  # noqa: B018 -- made before anything is measured
    for name, step in (("predict", score), ("train", fit)):
        used = [[step(workshop, rows) for _ in range(3)] for rows in ROWS]
        # The fastest of three: the other two say how busy the machine was.
        yield line(f"growth {name}, s", [min(u.seconds for u in runs) for runs in used])
        yield line(f"growth {name}, MB", [max(u.megabytes for u in runs) for runs in used])
    yield from level_1(workshop)


def level_1(workshop: Workshop) -> Iterator[Line]:
    """Each stage on one batch, and what looks at all batches: drift and the online store."""
    project = workshop.champion
    params, raw = project / "params.yaml", project / "data/raw"
    params.write_text(params.read_text().replace("through: 2013-03 ", "through: null "))
    raw.rename(raw.with_name("year"))
    raw.mkdir()
    used: dict[str, list[Used]] = {}
    for rows in ROWS:
        shutil.copy(workshop.flights(rows), raw / "2013-03.parquet")
        (project / "data/online.db").unlink(missing_ok=True)
        for name in retraining.STAGES:
            used.setdefault(name, []).append(retraining.stage(project, name))
        for name in ("drift", "materialize"):
            command = [project / ".venv/bin/python", "-m", PACKAGE, name]
            used.setdefault(name, []).append(measure(command, project))
    for name, runs in used.items():
        yield line(f"growth {name}, s", [run.seconds for run in runs])
        yield line(f"growth {name}, MB", [run.megabytes for run in runs])


def line(name: str, values: list[float]) -> Line:
    shown = ", ".join(f"{value:.0f}" if value > 100 else f"{value:.1f}" for value in values)
    return Line(name, f"{shown} at 1e4, 1e5, 1e6 rows, exponent {exponent(values)}")


def exponent(values: list[float]) -> str:
    """From a + b r^k at r, 10 r, 100 r: (third - first) / (second - first) = 10^k + 1."""
    first, second, third = values
    if second - first < 0.05 * first or third <= second:
        return "none: noise hides it"
    return f"{math.log10((third - second) / (second - first)):.2f}"


def fit(workshop: Workshop, rows: int) -> Used:
    """Train on the flights of a file, which params.yaml names as its owner would."""
    params = workshop.project / "params.yaml"
    before = params.read_text(encoding="utf-8")
    settings = {"source:": workshop.flights(rows), "through:": "null"}
    lines = []
    for text in before.splitlines():
        key = text.split(maxsplit=1)[0] if text.strip() else ""
        lines.append(f"  {key} {settings[key]}" if key in settings else text)
    params.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        return workshop.step("train")
    finally:
        params.write_text(before, encoding="utf-8")
