"""What the gate says to months that arrive healthy or with a fault: `faults.py PACKAGE` in a project.

Months arrive one after another. The champion is the recipe fitted on the months before, all healthy; the
challenger is fitted on them and the newest month but for its last days, which are held out; then both are
judged as `challenger.checks` does it, but for `latency`. A line of JSON is a case. A fault is put into the
raw batch before it is read, so validation, feature views and drift see it too, in one of two variants:

- `month`: in the whole batch, so that the rows held out carry it as well;
- `fitted`: only in the rows before those held out, as if it had been mended in between.

The harm is that of the model that would have been promoted, fitted again on all rows, on the next
healthy month: against the old champion, and against what a healthy month would have made.
"""

import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

MONTHS, FAULTY = range(4, 13), (5, 8, 11)
VARIANTS = ("month", "fitted")
RULES = {"distance": {"max": 5000}, "wind_gust": {"min": 16}}  # an owner's, in schema.yaml
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust"]
WEATHER += ["precip", "pressure", "visib"]
Change = Callable[[pd.DataFrame], pd.DataFrame]


class Project:
    """The modules of the generated project that are measured, its settings and its healthy months."""

    def __init__(self, package: str) -> None:
        floor = "continuous_training"
        modules = ("data", "feature_views", f"{floor}.settings", f"{floor}.features.offline")
        modules += (f"{floor}.decision.gate", f"{floor}.drift.distributions")
        modules += (f"{floor}.stages.prepare", f"{floor}.stages.validate")
        names = ("column_types", "dataset", "evaluate", "tables", "train")
        modules += tuple(f"experiment.{name}" for name in names)
        for name in modules:
            module = importlib.import_module(f"{package}.{name}")
            setattr(self, name.rpartition(".")[2], module)
        params = self.train.load()
        every = params.data.model_copy(update={"through": None})
        self.params = params.model_copy(update={"data": every})
        self.limits = self.settings.load()
        self.raw = dict(enumerate(self.dataset.batches(every), 1))
        self.months = {month: self.read(path) for month, path in self.raw.items()}
        first = pd.concat([self.months[m] for m in (1, 2, 3)], ignore_index=True)
        inferred = self.validate.infer(first, every)
        owners = {column: rules | RULES.get(column, {}) for column, rules in inferred.items()}
        self.schemas = {"validation": inferred, "rules": owners}
        self.year = self.viewed(pd.concat(self.months.values(), ignore_index=True))

    def read(self, path: Path) -> pd.DataFrame:
        return self.tables.read([path], self.params.data)

    def viewed(self, rows: pd.DataFrame) -> pd.DataFrame:
        """All rows with the columns of the feature views, as `build_views` and `prepare` add them."""
        store = self.offline.offline(rows, self.params.data)
        return rows if store is None else store.add(rows)

    def month(self, number: int, rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows[self.params.data.time].dt.month == number]

    def labelled(self, rows: pd.DataFrame) -> pd.DataFrame:
        return self.data.labelled(rows, self.params)

    def split(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        newest = np.zeros(len(rows), bool)  # only used without a time column
        return self.prepare.split(rows, newest, self.params, self.limits.gate.holdout)


@dataclass
class Case:
    """A month: its rows to fit on and to judge on, and how it is called."""

    fault: str
    kind: str
    month: int
    variant: str
    batch: pd.DataFrame
    rows: pd.DataFrame

    def named(self) -> dict:
        return {k: getattr(self, k) for k in ("fault", "kind", "month", "variant")}


def label(project: Project, change: Callable[[pd.DataFrame], Any]) -> Change:
    """A change of the target where it is known."""
    target = project.params.data.target

    def changed(raw: pd.DataFrame) -> pd.DataFrame:
        known = raw[target].notna()
        values = pd.Series(change(raw), raw.index).astype(raw[target].dtype)
        return raw.assign(**{target: values.where(known)})

    return changed


def shuffled(project: Project) -> Change:
    target, random = project.params.data.target, np.random.default_rng(0)

    def changed(raw: pd.DataFrame) -> pd.DataFrame:
        values, known = raw[target].copy(), raw[target].notna().to_numpy()
        values[known] = random.permutation(values[known].to_numpy())
        return raw.assign(**{target: values})

    return changed


def scaled(factors: dict[str, tuple[float, float]]) -> Change:
    """Columns less an offset, times a factor."""
    return lambda raw: raw.assign(**{c: (raw[c] - o) * f for c, (o, f) in factors.items()})


def frozen(raw: pd.DataFrame) -> pd.DataFrame:
    """The weather of each airport stays what it was at the start of the month."""
    return raw.assign(**{c: raw.groupby("origin")[c].transform("first") for c in WEATHER})


def repeated(chosen: Callable[[pd.DataFrame], pd.Series], times: int) -> Change:
    def changed(raw: pd.DataFrame) -> pd.DataFrame:
        more = [raw[chosen(raw)]] * (times - 1)
        rows = pd.concat([raw, *more]).sort_values("scheduled_departure", kind="stable")
        return rows.reset_index(drop=True)

    return changed


def faults(project: Project) -> dict[str, tuple[str, Change]]:
    """Name -> the kind of fault, and what it does to a raw batch."""
    celsius, metres = (32.0, 5 / 9), (0.0, 0.44704)
    weather = {"temp": celsius, "dewp": celsius, "wind_speed": metres, "wind_gust": metres}
    everywhere = lambda raw: pd.Series(True, raw.index)  # noqa: E731
    late = lambda raw: (raw["arr_delay"] > 15).fillna(False)  # noqa: E731
    if project.params.task == "classification":
        labels = {
            "late > 0": lambda raw: raw["arr_delay"] > 0,
            "late > 45": lambda raw: raw["arr_delay"] > 45,
        }
        one = {"inverted": lambda y: 1 - y, "all False": lambda y: 0 * y}
    else:
        labels = {
            "early is 0": lambda raw: raw["arr_delay"].clip(lower=0),
            "delay at departure": lambda raw: raw["dep_delay"],
            "delay in hours": lambda raw: raw["arr_delay"] / 60,
        }
        one = {"sign changed": lambda y: -y, "all 0": lambda y: 0 * y}
    made = {name: ("label's rule", label(project, rule)) for name, rule in labels.items()}
    made["labels shuffled"] = ("labels shuffled", shuffled(project))
    made["weather in C, m/s"] = ("unit", scaled(weather))
    made["distance in km"] = ("unit", scaled({"distance": (0.0, 1.609344)}))
    made["weather frozen"] = ("stale feed", frozen)
    day = pd.Timedelta(days=1)
    made["arrivals a day late"] = ("stale feed", lambda raw: raw.assign(landed=raw["landed"] + day))
    made["arrivals unknown"] = ("stale feed", lambda raw: raw.assign(landed=pd.NaT))
    made["late flights twice"] = ("rows repeated", repeated(late, 2))
    made["every row three times"] = ("rows repeated", repeated(everywhere, 3))

    def at_jfk(rule: Callable) -> Callable:
        target = project.params.data.target
        return lambda raw: raw[target].where(
            raw["origin"] != "JFK", rule(raw[target].astype("Float64")).astype(raw[target].dtype)
        )

    for name, rule in one.items():
        made[f"JFK {name}"] = ("one segment", label(project, at_jfk(rule)))
    return made


def cases(project: Project, folder: Path) -> Iterator[Case]:
    """The healthy months, then the faulty ones."""
    for month in MONTHS:
        rows = project.year[project.year[project.params.data.time].dt.month <= month]
        yield Case("healthy", "healthy", month, "", project.months[month], rows)
    time = project.params.data.time
    for name, (kind, change) in faults(project).items():
        for month in FAULTY:
            raw = pd.read_parquet(project.raw[month])
            day = raw[time].dt.normalize()
            start = day.max() - pd.Timedelta(days=project.limits.gate.holdout - 1)
            for variant in VARIANTS:
                broken = change(raw)
                if variant == "fitted":
                    parts = [broken[broken[time] < start], raw[raw[time] >= start]]
                    broken = pd.concat(parts, ignore_index=True)
                path = folder / project.raw[month].name
                broken.to_parquet(path, index=False)
                batch = project.read(path)
                before = [project.months[m] for m in range(1, month)]
                rows = project.viewed(pd.concat([*before, batch], ignore_index=True))
                yield Case(name, kind, month, variant, batch, rows)


class Judge:
    """Fits and judges what a case asks for; a recipe is fitted once on the same rows."""

    def __init__(self, project: Project) -> None:
        self.project, self.fitted = project, {}

    def fit(self, rows: pd.DataFrame) -> Any:
        content = pd.util.hash_pandas_object(rows, index=False).to_numpy()
        key = hash(content.tobytes())
        if key not in self.fitted:
            self.fitted[key] = self.project.train.fit(rows, self.project.params)
        return self.fitted[key]

    def champion(self, month: int) -> Any:
        """The recipe on all healthy rows before a month."""
        year = self.project.year
        before = year[year[self.project.params.data.time].dt.month < month]
        return self.fit(self.project.labelled(before))

    def record(self, month: int) -> pd.DataFrame:
        """The evaluation of that champion from when it was judged: before it was fitted on all rows."""
        project, year = self.project, self.project.year
        before = year[year[project.params.data.time].dt.month < month]
        train, holdout = project.split(project.labelled(before))
        baseline = project.evaluate.baseline(train, project.params)
        models = {"candidate": self.fit(train), "baseline": baseline}
        return project.evaluate.compare(models, holdout, project.params)

    def checks(self, case: Case, strict: bool) -> list:
        """As challenger.checks, but for `latency`."""
        project, gate, params = self.project, self.project.gate, self.project.params
        train, holdout = project.split(project.labelled(case.rows))
        challenger, champion = self.fit(train), self.champion(case.month)
        judged = gate.predict_holdout(challenger, holdout, params)
        other = gate.predict_holdout(champion, holdout, params)
        limits = project.limits.gate.model_copy(update={"strict": strict})
        found = gate.against_champion(judged, other, holdout, params, limits)
        found += gate.against_baseline(judged, train, holdout, params)
        record = self.record(case.month)
        found.append(gate.doubt_rows(other, train, holdout, record, params, limits))
        kinds = [m.named_steps["tidy"].kinds for m in (challenger, champion)]
        views = [view.name for view in project.feature_views.VIEWS]
        return [*found, gate.signature(*map(project.column_types.Kinds, kinds), views, limits)]

    def drifted(self, case: Case) -> list[str]:
        """The columns of the newest batch that drift.py would name."""
        project, target = self.project, self.project.params.data.target
        reference = project.year[project.year[project.params.data.time].dt.month < case.month]
        inputs = self.champion(case.month).named_steps["tidy"].kinds
        columns = {c: kind for c, kind in inputs.items() if kind != "date"}
        columns |= project.column_types.kinds(reference[[target]])
        cuts = project.distributions.bins(reference, project.column_types.Kinds(columns))
        sides = (reference, case.rows.iloc[-len(case.batch) :])
        known, newest = (project.distributions.count(side, cuts) for side in sides)
        known[target][-1] = newest[target][-1] = 0
        limits, found = project.limits.drift, []
        for column, its in cuts.items():
            if newest[column].any():
                measured = project.distributions.compare(
                    known[column], newest[column], its.kind, limits
                )
                found += [column] * measured["drifted"]
        return found

    def harm(self, case: Case) -> dict[str, dict[str, float]]:
        """The next healthy month's metrics of the model promoted, of the old champion, of a healthy one."""
        project = self.project
        rows = project.labelled(project.month(case.month + 1, project.year))
        models = {
            "promoted": self.fit(project.labelled(case.rows)),
            "champion": self.champion(case.month),
            "healthy": self.champion(case.month + 1),
        }
        return {name: project.train.score(m, rows, project.params) for name, m in models.items()}


def measured(judge: Judge, case: Case) -> dict:
    project, found = judge.project, case.named()
    checks = {name: judge.checks(case, name == "strict") for name in ("default", "strict")}
    for rule, its in checks.items():
        found[rule] = sorted({check.name for check in its if not check.passed})
    found["checks"] = [project.gate.as_json(check) for check in checks["default"]]
    batch = case.batch.drop(columns=project.params.data.drop)
    for name, schema in project.schemas.items():
        found[name] = project.validate.check(batch, schema)
    found["drift"] = judge.drifted(case)
    found["next"] = judge.harm(case) if case.month + 1 in project.months else None
    return found


if __name__ == "__main__":
    judge = Judge(Project(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(judge.project, Path(folder)):
            print(json.dumps(measured(judge, case)), flush=True)
