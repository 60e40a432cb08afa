"""The prediction service: the model whose alias is the environment's name, over HTTP.

`python -m << cookiecutter.package_name >> service --env dev` answers until it is stopped: POST /predict takes
`{"rows": [{column: value}]}`, and its schema (GET /docs) is the model's signature. GET /health says that
the process lives, GET /ready and GET /model what it serves.
"""

import logging
import os
import socket
from datetime import datetime
from typing import Annotated, Any

import pandas as pd
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from mlflow.entities.model_registry import ModelVersion
from pydantic import BaseModel, ConfigDict, Field, create_model

from .. import __doc__ as about
from .. import tracking
from ..errors import UserError
from ..evaluate import predict
from ..features import Kinds, canonical
from ..params import load
from ..registry import Loaded, load_model, require_version
from . import settings

TYPES: dict[str, Any] = {"number": float | None, "text": str | None, "date": datetime | None}
# Variables: the digest of the release that runs, and the commit that it was built from.
IMAGE, COMMIT = "RELEASE_IMAGE", "RELEASE_COMMIT"

log = logging.getLogger(__name__)


def schema(kinds: Kinds, rows: int) -> type[BaseModel]:
    """What a request holds: the columns of the model's signature, each of which may be missing."""
    config = ConfigDict(extra="forbid")
    fields: dict[str, Any] = {
        f"column_{k}": (TYPES[kind], Field(None, alias=name))
        for k, (name, kind) in enumerate(kinds.items())
    }
    row = create_model("Row", __config__=config, **fields)
    several = Annotated[list[row], Field(min_length=1, max_length=rows)]  # type: ignore[valid-type]
    return create_model("Rows", __config__=config, rows=(several, ...))


def frame(rows: BaseModel, kinds: Kinds) -> pd.DataFrame:
    """The rows of a request (n, columns of the signature) as the model takes them."""
    given = [row.model_dump(by_alias=True) for row in rows.rows]  # type: ignore[attr-defined]
    return canonical(pd.DataFrame(given, columns=list(kinds)).convert_dtypes(), kinds)


def app(served: Loaded, version: ModelVersion, limits: settings.Service) -> FastAPI:
    """The service of one model."""
    api = FastAPI(title=version.name, description=str(about), version=str(version.version))
    facts: dict[str, Any] = {key: version.tags.get(key) for key in ("commit", "data", "trigger")}
    facts |= {"model": version.name, "version": int(version.version)}
    facts |= {"image": os.environ.get(IMAGE), "pid": os.getpid()}
    facts["code"] = os.environ.get(COMMIT)
    body = schema(served.kinds, limits.rows)

    @api.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok"}

    @api.get("/ready")
    def ready() -> dict[str, Any]:
        return {key: facts[key] for key in ("version", "image", "code", "pid")}

    @api.get("/model")
    def model() -> dict[str, Any]:
        return facts | {"inputs": served.kinds}

    @api.post("/predict")
    def answer(rows: body) -> dict[str, Any]:  # type: ignore[valid-type]
        try:
            found = predict(served.model, frame(rows, served.kinds))
        except UserError as error:
            raise HTTPException(422, str(error)) from None
        return {"version": facts["version"], "predictions": found.tolist()}

    @api.exception_handler(RequestValidationError)
    def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        """What is wrong and where, without the values, which may be private."""
        found = [{"loc": e["loc"], "msg": e["msg"], "type": e["type"]} for e in error.errors()]
        return JSONResponse({"detail": found}, status_code=422)

    @api.middleware("http")
    async def small(request: Request, answer: Any) -> Any:
        length = request.headers.get("content-length", "0" if request.method == "GET" else "-1")
        if not 0 <= int(length) <= limits.body:
            return JSONResponse({"detail": f"at most {limits.body} bytes"}, status_code=413)
        return await answer(request)

    return api


def listen(port: int, host: str) -> socket.socket:
    """A socket that another release may listen on beside this one, so that none is missed."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        raise UserError(f"port {port} of {host} cannot be used: {error.strerror}") from None
    return found


def run(env: str, port: int) -> None:
    params, limits = load(), settings.load()
    settings.before(env, limits)
    version = require_version(tracking.connect(), params.register_.name, env)
    served = load_model(version, params)
    host = os.environ.get("SERVICE_HOST", "127.0.0.1")
    log.info("%s version %s: http://%s:%d", version.name, version.version, host, port)
    config = uvicorn.Config(app(served, version, limits.service), log_level="warning")
    uvicorn.Server(config).run(sockets=[listen(port, host)])
