"""What the feature views are worth: fitted on all months before, scored on the next, with and without.

`views.py PACKAGE` prints the metrics by month, April to December, as a line of JSON.
"""

import importlib
import json
import sys

import pandas as pd

if __name__ == "__main__":
    train = importlib.import_module(f"{sys.argv[1]}.experiment.train")
    floors = importlib.import_module(f"{sys.argv[1]}.experiment.floors")
    params = train.load()
    whole = params.model_copy(update={"data": params.data.model_copy(update={"through": None})})
    rows = train.labelled_rows.load(whole)
    views = floors.feature_store(whole.data).columns
    months = rows[params.data.time].dt.strftime("%Y-%m")
    found = []
    for month in sorted(months.unique())[3:]:
        for kind, table in {"without": rows.drop(columns=views), "with": rows}.items():
            model = train.fit(table[months < month], whole)
            scores = train.score(model, table[months == month], whole)
            found.append({"month": month, "views": kind, **scores})
    table = pd.DataFrame(found)
    print(json.dumps(table.to_dict("records")))
