"""The peer of the step predict: `predict.py PACKAGE FILE` prints the seconds of each call.

The model is the champion, the frame holds its columns as pandas reads them, all rows at once.
"""

import importlib
import json
import sys
import time

import pandas as pd

if __name__ == "__main__":
    predict = importlib.import_module(f"{sys.argv[1]}.experiment.predict")
    params, client = predict.load(), predict.tracking.connect()
    version = predict.require_version(client, params.register_.name, "champion")
    model, kinds = predict.load_model(version, params)
    frame = pd.read_parquet(sys.argv[2], columns=list(kinds))
    seconds = []
    for _ in range(2):  # the first call also makes the process's memory grow
        start = time.perf_counter()
        model.predict_proba(frame)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))
