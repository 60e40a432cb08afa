"""Tables of an owner's own, in three tasks and two shapes: made here, or from scikit-learn's data.

`python tables.py NAME TASK` writes one below data/raw of the project in the working folder, run by its
own Python, and names it in params.yaml; nothing else is edited, as the README says.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from sklearn import datasets

LATE = "data/2025-06.parquet"
METRIC = {"classification": "roc_auc", "classes": "log_loss", "regression": "mae"}


def single(task: str) -> tuple[pd.DataFrame, str, dict]:
    """One CSV as Brazil writes it, without time or id: rows, target, settings of `data`."""
    random = np.random.default_rng(0)
    if task == "classes":
        found = datasets.load_wine(as_frame=True)
        frame = found.frame.loc[np.repeat(found.frame.index, 6)].reset_index(drop=True)
        numbers = found.data.columns
        noise = random.normal(scale=0.3, size=(len(frame), len(numbers)))
        frame[numbers] += noise * frame[numbers].std().to_numpy()
        frame["região"] = random.choice(["São Roque", "Vale do São Francisco", "Pampa"], len(frame))
        target = "safra"
        words = {0: "clássica", 1: "média", 2: "excepcional"}
        frame[target] = frame.pop("target").map(words)
    elif task == "classification":
        found = datasets.load_breast_cancer(as_frame=True)
        frame, target = found.frame.drop(columns="target"), "diagnóstico"
        frame[target] = found.target.map({0: "maligno", 1: "benigno"})
        frame["clínica"] = random.choice(["Ipê", "Jatobá"], len(frame))
    else:
        found = datasets.load_diabetes(as_frame=True)
        frame, target = found.frame.rename(columns={"target": "progressão"}), "progressão"
        frame["sexo"] = np.where(frame.pop("sex") > 0, "m", "f")
    csv = {"sep": ";", "decimal": ",", "encoding": "latin-1"}
    Path("data/raw").mkdir(parents=True, exist_ok=True)
    frame.to_csv("data/raw/tabela.csv", index=False, **csv)
    return frame, target, {"source": "data/raw/tabela.csv", "csv": csv}


def monthly(task: str) -> tuple[pd.DataFrame, str, dict]:
    """A Parquet file a month, with time and id; in the newest the labels of many rows are yet to come."""
    random, rows = np.random.default_rng(1), 12_000
    time = pd.date_range("2025-01-01", "2025-06-30 23:59", periods=rows)
    frame = pd.DataFrame(
        {
            "quando": time.astype("datetime64[us]"),
            "pedido": [f"P{k:06}" for k in range(rows)],
            "valor": random.lognormal(3, 1, rows),
            "itens": random.integers(1, 9, rows),
            "canal": random.choice(["app", "loja", "site", None], rows),
            "cadastro": time - pd.to_timedelta(random.integers(1, 900, rows), "D"),
        }
    )
    score = np.log(frame["valor"]) + (frame["canal"] == "app") + frame["itens"] / 4
    score += random.normal(scale=0.7, size=rows)
    target = "atraso"
    if task == "regression":
        frame[target] = score * 10
    elif task == "classes":
        frame[target] = np.select([score < 3.8, score < 5.2], ["cedo", "no prazo"], "tarde")
    else:
        frame[target] = (score > 5).astype("boolean")
    Path("data/raw").mkdir(parents=True, exist_ok=True)
    months = dict(list(frame.groupby(time.strftime("%Y-%m"))))
    months["2025-06"].to_parquet(LATE, index=False)
    waiting = random.random(len(months["2025-06"])) < 0.4
    months["2025-06"][target] = months["2025-06"][target].where(~waiting, None)
    for month, part in months.items():
        part.to_parquet(f"data/raw/{month}.parquet", index=False)
    return frame, target, {"time": "quando", "id": "pedido", "through": "2025-05"}


def late() -> None:
    """The labels that were yet to come have come."""
    Path(LATE).replace("data/raw/2025-06.parquet")


def example(task: str) -> tuple[pd.DataFrame, str, dict]:
    """The flights; as three classes: early, on time, late."""
    for path in sorted(Path("data/raw").glob("*.parquet")) if task == "classes" else ():
        frame = pd.read_parquet(path)
        delay = frame["arr_delay"]
        frame["arrival"] = np.select([delay < -10, delay <= 15], ["early", "on time"], "late")
        frame["arrival"] = frame["arrival"].where(delay.notna(), None)
        frame.to_parquet(path, index=False)
    return frame, "arrival", {"drop": ["late"]}


def main(name: str, task: str) -> None:
    if name == "example" and task != "classes":
        return
    path = Path("params.yaml")
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    frame, target, about = {"single": single, "monthly": monthly, "example": example}[name](task)
    if name == "example":
        settings["data"] |= {"target": target, "drop": settings["data"]["drop"] + about["drop"]}
    else:
        whole = {"time": None, "id": None, "drop": [], "through": None}
        settings["data"] |= whole | {"target": target} | about
        settings["evaluate"]["segments"] = [
            c for c in frame if frame[c].nunique() < 5 and c != target
        ]
    settings["evaluate"]["metric"] = METRIC[task]
    path.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
