"""A user's own tables, named in params.yaml and nothing else: each goes the whole way."""

import datetime
import decimal
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

N = 1200


class Table:
    """A table with a signal: a number x, a group g, and an outcome y that depends on both."""

    def __init__(self, folder: Path):
        self.folder, self.rng = folder, np.random.default_rng(0)
        self.x = self.rng.normal(size=N)
        self.g = self.rng.choice(list("abc"), N)
        self.y = self.x + (self.g == "a") + self.rng.normal(size=N) / 2


def german(t: Table):
    """CSV with `;`, decimal comma, points for thousands, latin-1, the day first; regression."""
    time = pd.date_range("2024-01-01", periods=N, freq="7h")
    swap = str.maketrans(",.", ".,")
    frame = pd.DataFrame(
        {
            "Datum": time.strftime("%d.%m.%Y %H:%M"),
            "Stadt": pd.Series(t.g).map({"a": "Köln", "b": "Düsseldorf", "c": "München"}),
            "Menge": [f"{v:.3f}".translate(swap) for v in t.x],
            "Vertrag": (time - pd.Timedelta(days=40)).strftime("%d.%m.%Y"),
            "Leer": "",
            "Umsatz": [f"{5000 + 1000 * v:,.2f}".translate(swap) for v in t.y],
        }
    )
    frame.to_csv(t.folder / "de.csv", sep=";", index=False, encoding="latin-1")
    csv = {"sep": ";", "decimal": ",", "encoding": "latin-1", "dayfirst": True}
    return "regression", {"source": "de.csv", "target": "Umsatz", "time": "Datum", "csv": csv}


def every_type(t: Table):
    """Parquet batches without time: nullable and mixed types, gaps, three text classes."""
    some = t.rng.random(N) < 0.1
    frame = pd.DataFrame(
        {
            "nullable": pd.array(t.rng.integers(0, 9, N), dtype="Int64"),
            "flag": pd.array(t.rng.random(N) > 0.5, dtype="boolean"),
            "x": t.x,
            "group": pd.Categorical(t.g),
            "empty": pd.Series([None] * N, dtype=object),
            "many": [f"id{k}" for k in t.rng.integers(0, 5000, N)],
            "date": pd.Timestamp("2020-01-01") + pd.to_timedelta(t.rng.integers(0, 900, N), "D"),
            "zoned": pd.date_range("2020-01-01", periods=N, freq="h", tz="Europe/Berlin"),
            "duration": pd.to_timedelta(t.rng.integers(0, 900, N), "s"),
            "label": np.select([t.y < -0.5, t.y < 1], ["low", "mid"], "high"),
        }
    )
    frame.loc[some, ["nullable", "flag", "x", "group", "date"]] = None
    frame[: N // 2].to_parquet(t.folder / "part-1.parquet")
    frame[N // 2 :].to_parquet(t.folder / "part-2.parquet")
    return "classification", {"source": "part-*.parquet", "target": "label"}


def churn(t: Table):
    """CSV with an id, postcodes, booleans with gaps, yes/no labels; then unseen words to score."""
    frame = pd.DataFrame(
        {
            "customer": [f"C{k:05}" for k in range(N)],
            "active": t.rng.choice(["True", "False", ""], N),
            "plan": t.g,
            "spend": t.x,
            "zip": [f"{k:05}" for k in t.rng.integers(0, 99999, N)],
            "churn": np.where(t.y > 0.3, "yes", "no"),
        }
    )
    frame.to_csv(t.folder / "churn.csv", index=False)
    frame.drop(columns="churn").assign(plan="new", zip="?").to_csv(
        t.folder / "score.csv", index=False
    )
    return "classification", {
        "source": "churn.csv",
        "target": "churn",
        "id": "customer",
        "text": ["zip"],
    }


def monthly(t: Table):
    """CSV batches by month with ISO times and 0/1 labels, some of them missing; three are used."""
    time = pd.date_range("2024-01-01", periods=N, freq="3h")
    bad = pd.Series((t.y > 0).astype(float)).where(t.rng.random(N) > 0.1)
    frame = pd.DataFrame({"ts": time.astype(str), "x": t.x, "g": t.g, "bad": bad})
    for month, part in frame.groupby(time.strftime("%Y-%m")):
        part.to_csv(t.folder / f"{month}.csv", index=False)
    through = "2024-03"
    data = {"source": "*.csv", "target": "bad", "time": "ts", "through": through, "unlabelled": 0}
    return "classification", data


def decimals(t: Table):
    """Parquet with decimals, date objects and a target with gaps; regression over time."""
    days = t.rng.integers(0, 900, N)
    frame = pd.DataFrame(
        {
            "price": [decimal.Decimal(f"{v:.2f}") for v in t.x],
            "built": [datetime.date(2020, 1, 1) + datetime.timedelta(int(d)) for d in days],
            "g": t.g,
            "at": pd.date_range("2021-01-01", periods=N, freq="h"),
            "y": np.where(np.arange(N) % 7, t.y, np.nan),
        }
    )
    frame.to_parquet(t.folder / "houses.parquet")
    return "regression", {"source": "houses.parquet", "target": "y", "time": "at"}


def words(t: Table):
    """Sixty rows, one column of words, a class that is rare."""
    rows = "".join(f"{a},{y}\n" for a, y in zip("abcdefghij", "pqpqpqpqpr", strict=True)) * 6
    (t.folder / "words.csv").write_text("word,y\n" + rows)
    return "classification", {"source": "words.csv", "target": "y"}


TABLES = [german, every_type, churn, monthly, decimals, words]


@pytest.mark.parametrize("table", TABLES, ids=lambda f: f.__name__)
def test_own_data(table, tmp_path, settings, step):
    task, data = table(Table(tmp_path))
    pattern = data["source"]
    sources = sorted(tmp_path.glob(pattern))
    document = {
        "task": task,
        "data": data | {"source": str(tmp_path / pattern)},
        "evaluate": {"metric": "mae" if task == "regression" else "roc_auc"},
        "register": {"name": f"own-{table.__name__.replace('_', '-')}"},
    }
    settings(base=document)
    score = tmp_path / "score.csv"
    score = score if score.exists() else sources[-1]
    output = tmp_path / "out.parquet"
    for arguments in (
        ["data"],
        ["train"],
        ["evaluate"],
        ["register", "--run", "last"],
        ["predict", "--input", str(score), "--output", str(output)],
    ):
        code, _, err = step(*arguments)
        assert code == 0, f"{arguments}: {err}"

    report = json.loads(Path("reports/evaluation.json").read_text())
    metric = {r["model"]: r[report["metric"]] for r in report["table"] if r["segment"] == "all"}
    if table is not words:  # too few rows to learn anything
        better = metric["candidate"] - metric["baseline"]
        assert better < 0 if task == "regression" else better > 0.1

    read = pd.read_parquet if score.suffix == ".parquet" else pd.read_csv
    options = {"sep": ";", "encoding": "latin-1"} if table is german else {}
    given, scored = read(score, **options), pd.read_parquet(output)
    assert len(scored) == len(given)
    assert (scored["model_version"] == 1).all()
    probabilities = scored.filter(like="probability_")
    assert np.isfinite(probabilities.to_numpy()).all()
    if task == "regression":
        assert scored["prediction"].std() > 0
    if "id" in data:
        assert list(scored[data["id"]]) == list(given[data["id"]])
