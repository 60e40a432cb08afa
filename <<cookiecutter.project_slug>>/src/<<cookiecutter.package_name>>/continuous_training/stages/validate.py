"""Data validation, a stage: each extracted batch against schema.yaml.

The schema is inferred once, by the first `make pipeline`, and from then on is yours to review and to
change: a line a column, with `kind` (number | text | date), `missing` (the largest share of values that
may be missing) and, if you add them, `min`, `max` and `values`. A batch that breaks it is quarantined,
as is one with times that are to come or lie far from all others, unless the column has `min` or `max`.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import yaml

from ...experiment import reports
from ...experiment.column_types import kinds
from ...experiment.errors import UserError
from ...experiment.params import ROOT, Data, load

SCHEMA = "schema.yaml"
SKEW = "skew.json"  # in reports/: what is to be quarantined, and why
HEAD = """\
# What every batch must look like, inferred from {batches}. Review it, change it, commit it.
# kind: number | text | date; missing: up to this share; add min, max or values: [a, b] if you like.
"""
MALFORMED = (TypeError, KeyError, ValueError, AttributeError)  # other YAML than is asked for
USUAL = 0.5  # the share of missing values that is allowed where few are missing
LONGEST_GAP = 30  # days without rows
FEW_ROWS = 0.01  # the share of a batch that may be wrong times

log = logging.getLogger(__name__)


def skew(broken: dict[str, list[str]], of: int, hint: str | None = None) -> UserError:
    """The error for batches (name -> what is wrong) that the pipeline is to quarantine.

    If all batches are wrong it is the settings or the schema, and none is quarantined; `hint` says which.
    """
    reasons_by_batch = "; ".join(
        f"batch {name}: {why}" for name, reasons in broken.items() for why in reasons
    )
    if len(broken) == of:
        hint = hint or f"with other data, delete {SCHEMA}: it is inferred anew"
        return UserError(
            f"no batch is as params.yaml and {SCHEMA} say ({hint}): {reasons_by_batch}"
        )
    reports.write_json(SKEW, broken)
    return UserError(reasons_by_batch)


def infer(frame: pd.DataFrame, settings: Data) -> dict[str, dict]:
    """Column -> its rules, from rows in canonical form; a feature may have gaps that it has not yet."""
    columns = {}
    for column, kind in kinds(frame.drop(columns=settings.drop)).items():
        allowed = USUAL if frame[column].isna().mean() < USUAL / 2 else 1
        if column in (settings.time, settings.id):
            allowed = 0
        elif column == settings.target:
            allowed = 1  # data.unlabelled says what becomes of them
        columns[column] = {"kind": kind, "missing": allowed}
    return columns


def write(columns: dict[str, dict], batches: list[str], path: Path) -> None:
    """Write the schema, a line a column."""
    lines = [
        yaml.safe_dump({c: r}, default_flow_style=None, width=1000) for c, r in columns.items()
    ]
    head = HEAD.format(batches=f"{batches[0]} to {batches[-1]}")
    path.write_text(head + "columns:\n" + "".join(f"  {line}" for line in lines), encoding="utf-8")


def read(path: Path) -> dict[str, dict]:
    """The columns of the schema; UserError if it is none."""
    try:
        columns = yaml.safe_load(path.read_text(encoding="utf-8"))["columns"]
        schema(columns)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: `make pipeline` infers it") from None
    except (yaml.YAMLError, RecursionError, *MALFORMED) as error:
        raise UserError(f"{path.name}: {' '.join(str(error).split())}") from None
    return columns


def schema(columns: dict[str, dict]) -> pa.DataFrameSchema:
    """The schema for pandera; every column of it must be there, and no other."""
    rules: dict[str, Any] = {"min": pa.Check.ge, "max": pa.Check.le, "values": pa.Check.isin}
    built = {}
    for column, given in columns.items():
        unknown = set(given) - {"kind", "missing", *rules}
        if unknown:
            raise KeyError(f"column {column!r}: {min(unknown)} is no rule")
        checks = [
            rule(given[name], name=f"{name}: {given[name]}")
            for name, rule in rules.items()
            if name in given
        ]
        checks += [_kind(given["kind"]), _missing(given.get("missing", 0))]
        built[column] = pa.Column(checks=checks, nullable=True)
    return pa.DataFrameSchema(built, strict=True)


def _kind(kind: str) -> pa.Check:
    """Whole columns of one kind; a column without any value may be of each."""
    fits = (kind, "empty") if kind != "empty" else ("number", "text", "date", "empty")
    return pa.Check(
        lambda column: kinds(column.to_frame())[column.name] in fits,
        name=f"kind: {kind}",
        ignore_na=False,  # pandera would copy the column to leave them out
    )


def _missing(share: float) -> pa.Check:
    return pa.Check(
        lambda column: column.isna().mean() <= share, name=f"missing: {share:g}", ignore_na=False
    )


def check(frame: pd.DataFrame, columns: dict[str, dict]) -> list[str]:
    """What is wrong with a batch, a sentence a column and rule."""
    try:
        schema(columns).validate(frame, lazy=True, inplace=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
    else:
        return []
    sentences = []
    for (column, rule), rows in cases.groupby(["column", "check"], sort=False, dropna=False):
        if rule in ("column_in_dataframe", "column_in_schema"):
            what = "is missing" if rule == "column_in_dataframe" else f"is not in {SCHEMA}"
            sentences += [f"column {name!r} {what}" for name in rows["failure_case"]]
        elif str(rule).startswith(("kind: ", "missing: ")):  # these are about a column as a whole
            share = f"{frame[column].isna().mean():.0%} of the values are missing"
            what = share if str(rule).startswith("missing") else f"holds {kinds(frame)[column]}s"
            sentences.append(f"column {column!r} breaks the rule {rule}: {what}")
        else:
            example = rows["failure_case"].tolist()[0]
            sentences.append(
                f"column {column!r} breaks the rule {rule}: {len(rows):,} rows, as {example!r}"
            )
    return sentences


def check_times(times: pd.Series) -> list[str]:
    """What is wrong with the times of a batch: some are to come, or a few lie far from all others.

    Far is a gap of empty days that is longer than a month and than the time on both its sides.
    """
    name, days = times.name, times.dropna().dt.normalize().value_counts().sort_index()
    now = pd.Timestamp.now(tz=times.dt.tz) + pd.Timedelta(days=1)  # wherever on earth
    if len(days) and days.index[-1] > now:
        count = days[days.index > now].sum()
        return [f"column {name!r}: {count:,} rows are to come, up to {days.index[-1]:%Y-%m-%d}"]
    if len(days) < 2:
        return []
    gaps = days.index.diff().days
    at = int(np.nanargmax(gaps))
    before, after = days.iloc[:at], days.iloc[at:]
    spans = [(side.index[-1] - side.index[0]).days for side in (before, after)]
    few = min((before, after), key=lambda side: side.sum())
    if gaps[at] > max(LONGEST_GAP, *spans) and few.sum() < FEW_ROWS * days.sum():
        where = f"{few.sum():,} rows from {few.index[0]:%Y-%m-%d}"
        return [f"column {name!r}: {where} lie {gaps[at]:,.0f} days from all others"]
    return []


def _hint(new: dict[str, dict]) -> str | None:
    """What to do about columns that neither schema.yaml nor data.drop knows."""
    if not new:
        return None
    lines = yaml.safe_dump(new, default_flow_style=None, sort_keys=False, width=1000).splitlines()
    return (
        f"data.drop does not name {', '.join(new)} any more, or they are new: what is known only after"
        f" the prediction leaks the target and belongs into data.drop, the rest into {SCHEMA}:"
        f" {'; '.join(lines)}"
    )


def run() -> None:
    settings = load().data
    drop, time = settings.drop, settings.time
    columns = {c: rules for c, rules in read(ROOT / SCHEMA).items() if c not in drop}
    paths, broken, report = sorted((ROOT / "data/extracted").glob("*.parquet")), {}, {}
    for path in paths:
        frame = pd.read_parquet(path)
        wrong = check(frame.drop(columns=drop), columns)
        if not wrong and time is not None and not {"min", "max"} & set(columns.get(time, ())):
            wrong = check_times(frame[time])
        if wrong:
            broken[path.stem] = wrong
        report[path.stem] = {"rows": len(frame), "columns": len(columns)}
    if broken:
        rest = frame.drop(columns=[*drop, *columns], errors="ignore")
        raise skew(broken, len(paths), _hint(infer(rest, settings.model_copy(update={"drop": []}))))
    reports.write_json("validation.json", {"batches": report})
    log.info("validate: %d batches are as %s says", len(paths), SCHEMA)
