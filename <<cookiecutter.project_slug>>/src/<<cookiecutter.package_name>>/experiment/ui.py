"""MLflow's pages for runs and models: the step `ui`.

With MLFLOW_TRACKING_URI on a server, that server has the pages; else they are served here.
"""

import logging

import mlflow

from . import tracking
from .serve import start

log = logging.getLogger(__name__)


def run(port: int) -> None:
    tracking.connect()
    uri = mlflow.get_tracking_uri()
    if not uri.startswith(("sqlite:", "postgresql", "mysql")):
        log.info("the runs are at %s", uri)
        return
    log.info("runs and models: http://127.0.0.1:%d", port)
    # Its address may hold a password, which all see in a list of processes: so not as an argument.
    # One process and no job runner: the pages need no more.
    light = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    start("server", "--workers", "1", port=port, MLFLOW_BACKEND_STORE_URI=uri, **light)
