"""The peer of the step predict: `predict.py PACKAGE FILE` prints the seconds of predict_proba.

The model is the champion, the frame holds its columns as pandas reads them, all rows at once.
"""

import importlib
import json
import sys
import time

import pandas as pd

if __name__ == "__main__":
    predict = importlib.import_module(f"{sys.argv[1]}.predict")
    params, client = predict.load(), predict.tracking.connect()
    version = predict.require_version(client, params.register_.name, "champion")
    model, kinds = predict.load_model(version, params)
    frame = pd.read_parquet(sys.argv[2], columns=list(kinds))
    model.predict_proba(frame.head(1000))
    start = time.perf_counter()
    model.predict_proba(frame)
    print(json.dumps({"seconds": time.perf_counter() - start}))
