"""The peer of the step train: `fit.py PACKAGE` prints the seconds of reading and of the fit."""

import importlib
import json
import sys
import time

if __name__ == "__main__":
    train = importlib.import_module(
        f"{sys.argv[1]}.experiment.train"
    )  # with all that the step imports
    data, params = train.data, train.load()
    start = time.perf_counter()
    frame = train.labelled_rows.load(params)
    X, y = data.xy(data.split(frame, params)[0], params)
    read = time.perf_counter() - start
    train.build(X, params).fit(X, y)
    fit = time.perf_counter() - start - read
    print(json.dumps({"read": read, "fit": fit}))
