"""What the gate is worth: months that arrive healthy, and months with a fault, a line each.

`inside/faults.py` says what a case is. `refused by` has the checks, in brackets those of the strict rule
alone; `schema`, whether validation stops the batch, by the inferred schema or with an owner's rules;
`drift`, how many columns have drifted, and how many of them have not in the same month without the fault.
`python benchmarks/gate.py FILE` prints the table of lines that faults.py wrote, in any project.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from project import INSIDE, PACKAGE, Line, Workshop, environment, measure

HEALTHY, HARMFUL = 7, 0.5  # months promoted at least; share of the harmful faults refused at least
METRICS = {"roc_auc": "AUC", "brier": "Brier", "mae": "MAE", "bias": "bias"}
ROW = "{:>5} {:<7} {:<9}{:<9}{:<29}{:<11}{:<6} {}"
HEAD = ("month", "fault", "default", "strict", "refused by", "schema", "drift", "harm")


def run(workshop: Workshop) -> Iterator[Line]:
    python = workshop.pipeline_project / ".venv/bin/python"
    # Its threads wait for each other as briefly as is best on a busy machine.
    env = environment(GOMP_SPINCOUNT="1000")
    used = measure([python, INSIDE / "faults.py", PACKAGE], workshop.pipeline_project, env)
    yield from table(read(used.output))


def read(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def table(cases: list[dict]) -> Iterator[Line]:
    usual = {case["month"]: set(case["drift"]) for case in cases if case["fault"] == "healthy"}
    yield Line("gate", ROW.format(*HEAD))
    for case in cases:
        rules = ("promoted" if not case[rule] else "refused" for rule in ("default", "strict"))
        only = [f"({name})" for name in case["strict"] if name not in case["default"]]
        why = " ".join([*case["default"], *only]) or "-"
        stopped = "stops" if case["validation"] else "with rules" if case["rules"] else "-"
        more = len(set(case["drift"]) - usual[case["month"]])
        drift = f"{len(case['drift'])}" + (f" +{more}" if more else "")
        shown = (case["month"], case["variant"], *rules, why, stopped, drift, harm(case))
        yield Line(case["fault"], ROW.format(*shown))
    yield from totals(cases)


def totals(cases: list[dict]) -> Iterator[Line]:
    faulty = [case for case in cases if case["variant"]]
    bad = [case for case in faulty if harmful(case)]
    for rule in ("default", "strict"):
        limited = rule == "default"
        healthy = [not case[rule] for case in cases if not case["variant"]]
        text, ok = f"{sum(healthy)} of {len(healthy)} promoted", sum(healthy) >= HEALTHY
        limit = (f">= {HEALTHY}", ok) if limited else ()
        yield Line(f"{rule}, healthy", text, *limit)
        for variant in ("month", "fitted"):
            some = [case for case in faulty if case["variant"] == variant]
            text = f"{refused(some, rule)} refused, of the harmful {refused(bad, rule, variant)}"
            yield Line(f"{rule}, {variant}", text)
        share = sum(bool(case[rule]) for case in bad) / max(len(bad), 1)
        limit = (f">= {HARMFUL:.0%}", share >= HARMFUL) if limited else ()
        yield Line(f"{rule}, harmful", f"{refused(bad, rule)} refused", *limit)


def refused(cases: list[dict], rule: str, variant: str | None = None) -> str:
    found = [bool(case[rule]) for case in cases if variant in (None, case["variant"])]
    return f"{sum(found)} of {len(found)}"


def change(case: dict, metric: str, than: str = "champion") -> float:
    """How much more of a metric the promoted model has on the next month; of bias, its size."""
    values = [case["next"][model][metric] for model in ("promoted", than)]
    first, second = (abs(v) if metric == "bias" else v for v in values)
    return first - second


def harm(case: dict) -> str:
    """Against the old champion; in brackets against the model that a healthy month would have made."""
    if case["next"] is None:
        return "-"
    names = [name for name in METRICS if name in case["next"]["champion"]]
    shown = " ".join(f"{METRICS[name]} {change(case, name):+.4f}" for name in names)
    if case["fault"] != "healthy":
        than = " ".join(f"{change(case, name, 'healthy'):+.4f}" for name in names)
        shown += f" ({than})"
    return shown + (" harmful" if harmful(case) else "")


def harmful(case: dict) -> bool:
    """Worse than the old champion by more than the gate's default tolerances."""
    if case["next"] is None:
        return False
    old = case["next"]["champion"]
    if "mae" in old:
        return change(case, "mae") > 0.005 * old["mae"]
    return change(case, "roc_auc") < -0.005 or change(case, "brier") > 0.005 * old["brier"]


if __name__ == "__main__":
    for line in table(read(Path(sys.argv[1]).read_text(encoding="utf-8"))):
        print(line)
