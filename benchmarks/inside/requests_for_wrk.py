"""Write scripts for wrk with real rows: `requests_for_wrk.py PACKAGE FOLDER`; the alias dev is set."""

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
    names = ("tracking", "params", "registry", "delivery.scoring")
    tracking, params, registry, scoring = (importlib.import_module(f"{package}.{n}") for n in names)
    settings, client = params.load(), tracking.connect()
    version = registry.require_version(client, settings.register_.name, "champion")
    client.set_registered_model_alias(version.name, "dev", version.version)
    example = scoring.golden(version, registry.load_model(version, settings))
    for rows in (1, 100):
        some = pd.concat([example] * rows).head(rows)
        records = json.loads(some.to_json(orient="records", date_format="iso"))
        bodies = {"predict": {"rows": records}, "invocations": {"dataframe_records": records}}
        for path, body in bodies.items():
            (folder / f"{path}-{rows}.lua").write_text(SCRIPT.format(json.dumps(body)))
