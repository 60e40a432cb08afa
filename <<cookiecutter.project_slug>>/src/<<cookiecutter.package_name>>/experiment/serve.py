"""Deployment by hand: a registered model behind MLflow's own HTTP server, on this machine.

The step `serve` answers at http://127.0.0.1:5001/invocations until
it is interrupted. MLflow's server runs what a model's files say; so the checked model is saved anew
and the server gets that copy, never the stored files.
"""

import logging
import os
import sys
import tempfile
from pathlib import Path

import mlflow

from . import tracking
from .errors import UserError
from .params import load
from .redaction import relay
from .registry import load_model, require_version, save_options

log = logging.getLogger(__name__)


def run(model: str, port: int) -> None:
    params = load()
    version = require_version(tracking.connect(), params.register_.name, model)
    pipeline, kinds = load_model(version, params)
    with tempfile.TemporaryDirectory() as folder:
        copy = str(Path(folder) / "model")
        mlflow.sklearn.save_model(pipeline, copy, **save_options(pipeline, kinds, params))
        log.info("%s version %s: http://127.0.0.1:%d", version.name, version.version, port)
        start("models", "serve", "--model-uri", copy, "--env-manager", "local", port=port)


def start(*command: str, port: int, **environment: str) -> None:
    """Run one of MLflow's servers on this machine until it is interrupted."""
    words = [sys.executable, "-m", "mlflow", *command, "--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment |= {"PATH": path}  # MLflow looks for its server's programs there
    try:
        code = relay(words, env=os.environ | environment)
    except KeyboardInterrupt:
        return
    if code:
        raise UserError(f"the server ended with code {code}: is port {port} in use (PORT=n)?")
