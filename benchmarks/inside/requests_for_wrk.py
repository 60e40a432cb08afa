"""Write scripts for wrk with real rows: `requests_for_wrk.py PACKAGE FOLDER`.

The alias dev is the champion's, and a second version, of the same run, is its canary for a tenth of the
rows. Requests to the service do not hold what it finds in the online feature store.
"""

import importlib
import json
import sys
from pathlib import Path

import pandas as pd

SCRIPT = (
    'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [[{}]]\n'
)

if __name__ == "__main__":
    package, folder = sys.argv[1], Path(sys.argv[2])
    names = ("experiment.tracking", "experiment.params", "experiment.registry", "feature_views")
    names += ("delivery.service.scoring", "delivery.service.routing", "experiment.column_types")
    tracking, params, registry, views, scoring, routing, column_types = (
        importlib.import_module(f"{package}.{name}") for name in names
    )
    settings, client = params.load(), tracking.connect()
    version = registry.require_version(client, settings.register_.name, "champion")
    client.set_registered_model_alias(version.name, "dev", version.version)
    other = client.create_model_version(
        version.name, version.source, version.run_id, tags=version.tags
    )
    routing.set_canary(client, version.name, "dev", str(other.version), 10)
    _, example = scoring.load_with_golden(version, settings)
    sent = example.drop(columns=[v.name for v in views.VIEWS if v.name in example])
    for rows in (1, 100):
        for path, key, frame in (
            ("predict", "rows", sent),
            ("invocations", "dataframe_records", example),
        ):
            some = pd.concat([frame] * rows).head(rows)
            records = [json.loads(row) for row in column_types.json_rows(some)]
            (folder / f"{path}-{rows}.lua").write_text(SCRIPT.format(json.dumps({key: records})))
