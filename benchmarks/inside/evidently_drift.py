"""The peer of drift: `evidently_drift.py FOLDER` prints the seconds of evidently's drift report."""

import json
import sys
import time
import warnings
from pathlib import Path

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    names = ("reference", "batch")
    reference, batch = (pd.read_parquet(Path(sys.argv[1]) / f"{name}.parquet") for name in names)
    numbers = list(reference.select_dtypes("number"))
    words = [column for column in reference if column not in numbers]
    start = time.perf_counter()
    kinds = DataDefinition(numerical_columns=numbers, categorical_columns=words)
    known, new = (Dataset.from_pandas(frame, data_definition=kinds) for frame in (reference, batch))
    found = Report([DataDriftPreset()]).run(new, known).dict()
    seconds = time.perf_counter() - start
    drifted = next(m["value"] for m in found["metrics"] if "count" in m["value"])
    print(json.dumps({"seconds": seconds, "drifted": drifted["count"], "of": reference.shape[1]}))
