"""Deployment by hand: a registered model behind MLflow's own HTTP server, on this machine.

`python -m << cookiecutter.package_name >> serve` checks the model first and serves the checked copy
at http://127.0.0.1:5001/invocations until it is interrupted.
"""

import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from . import tracking
from .errors import UserError
from .params import load
from .registry import load_model, require_version

log = logging.getLogger(__name__)


def run(model: str, port: int) -> None:
    params = load()
    version = require_version(tracking.connect(), params.register_.name, model)
    with tempfile.TemporaryDirectory() as folder:
        load_model(version, params, Path(folder))
        log.info("%s version %s: http://127.0.0.1:%d", version.name, version.version, port)
        command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", folder]
        command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        code = subprocess.run(command, env=os.environ | {"PATH": path}, check=False).returncode
    if code not in (0, 130, -2):
        raise UserError(f"the server ended with code {code}: is port {port} in use (PORT=n)?")
