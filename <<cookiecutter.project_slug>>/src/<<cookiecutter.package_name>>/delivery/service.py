"""The prediction service: the model whose alias is the environment's name, over HTTP.

`python -m << cookiecutter.package_name >> service --env dev` answers until it is stopped, and follows the registry: when
the alias moves it loads and checks that version beside the old one, and then swaps. POST /predict takes
`{"rows": [{column: value}]}`; GET /docs shows the rest.
"""

import asyncio
import functools
import gc
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import prometheus_client as prometheus
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from .. import __doc__ as about
from .. import tracking
from ..errors import UserError, sentence
from ..features import Kinds
from ..params import ROOT, Params, load
from ..registry import find_version, require_version
from . import settings
from .journal import Journal, Table
from .releases import COMMIT, IMAGE
from .scoring import Served

if sys.platform == "win32":
    from asyncio import run as run_loop
else:
    from uvloop import run as run_loop

TYPES: dict[str, Any] = {"number": float | None, "text": str | None, "date": datetime | None}
JSON = (b"content-type", b"application/json")
CHECK = (b"x-check", b"deployment")  # a request of checks.py is answered, but no prediction to log

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """A request that is answered with this status and what is wrong."""

    def __init__(self, status: int, detail: Any) -> None:
        self.status, self.detail = status, detail


class Schema:
    """What a request holds: rows with the columns of the signature, each of which may be missing."""

    def __init__(self, kinds: Kinds, limit: int) -> None:
        names = {f"column_{k}": (name, TYPES[kind]) for k, (name, kind) in enumerate(kinds.items())}
        config = ConfigDict(extra="forbid")
        fields = {key: (kind, Field(None, alias=name)) for key, (name, kind) in names.items()}
        row = create_model("Row", __config__=config, **fields)  # type: ignore[call-overload]
        several = Annotated[list[row], Field(min_length=1, max_length=limit)]  # type: ignore[valid-type]
        self.model: type[BaseModel] = create_model("Rows", __config__=config, rows=(several, ...))
        quick = msgspec.defstruct(
            "Row",
            [(key, kind, None) for key, (_, kind) in names.items()],
            rename={key: name for key, (name, _) in names.items()},
            forbid_unknown_fields=True,
        )
        whole = Annotated[list[quick], msgspec.Meta(min_length=1, max_length=limit)]  # type: ignore[valid-type]
        body = msgspec.defstruct("Rows", [("rows", whole)], forbid_unknown_fields=True)
        self.decoder = msgspec.json.Decoder(body)
        self.dates = [k for k, kind in enumerate(kinds.values()) if kind == "date"]

    def rows(self, body: bytes) -> list[tuple]:
        """The rows of a request in the order of the signature; RefusedError names every wrong field."""
        try:
            found = [msgspec.structs.astuple(row) for row in self.decoder.decode(body).rows]  # type: ignore[attr-defined]
        except (
            msgspec.DecodeError
        ):  # pydantic knows more forms of a date, and says all that is wrong
            try:
                given = self.model.model_validate_json(body).rows  # type: ignore[attr-defined]
                found = [tuple(dict(row).values()) for row in given]
            except ValidationError as error:  # without the values, which may be private
                wrong = error.errors(include_url=False, include_input=False, include_context=False)
                detail = [{**e, "loc": ["body", *e["loc"]]} for e in wrong]
                raise RefusedError(422, detail) from None
        return [_without_zone(row, self.dates) for row in found] if self.dates else found


def _without_zone(row: tuple, dates: list[int]) -> tuple:
    """Dates with a zone become UTC, as in training."""
    if all(row[k] is None or row[k].tzinfo is None for k in dates):
        return row
    values = list(row)
    for k in dates:
        if values[k] is not None and values[k].tzinfo is not None:
            values[k] = values[k].astimezone(UTC).replace(tzinfo=None)
    return tuple(values)


class Metrics:
    """What Prometheus reads from /metrics."""

    def __init__(self, journal: Journal | None) -> None:
        self.registry = prometheus.CollectorRegistry()
        named: dict[str, Any] = {"registry": self.registry}
        self.requests = prometheus.Counter("requests", "Predictions asked for", ["status"], **named)
        self.rows = prometheus.Counter("rows", "Rows scored", ["version"], **named)
        self.seconds = prometheus.Histogram("seconds", "Time to answer", **named)
        self.version = prometheus.Gauge("model_version", "Version that answers", **named)
        self.refused = prometheus.Counter(
            "refused_versions", "Versions that may not serve", **named
        )
        if journal is not None:
            for key, text in (
                ("size", "Bytes that wait for the database"),
                ("dropped", "Requests that the journal had no room for: act on any"),
                ("rejected", "Rows that the database did not take"),
            ):
                gauge = prometheus.Gauge(f"prediction_log_{key}", text, **named)
                gauge.set_function(functools.partial(getattr, journal, key))


class Service:
    """An ASGI application: /predict by itself, for speed, and everything else by FastAPI."""

    def __init__(
        self,
        served: Served,
        limits: settings.Service,
        name: str = "model",
        journal: Journal | None = None,
    ) -> None:
        self.limits, self.journal = limits, journal
        self.metrics = Metrics(journal)
        self.token = os.environ.get("SERVICE_TOKEN", "")
        self.refused: dict[str, str] = {}  # version -> why it may not serve
        self.api = self._api(name)
        self.swap(served)

    def swap(self, served: Served) -> None:
        """Answer with this model from now on; requests that have begun keep the old one."""
        self.served, self.schema = served, Schema(served.kinds, self.limits.rows)
        self.metrics.version.set(served.version)
        self.rows = self.metrics.rows.labels(str(served.version))
        self.api.openapi_schema = None
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # the trees need not be looked at again in every collection

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict" or scope["method"] != "POST":
            await self.api(scope, receive, send)
            return
        start, status = time.perf_counter(), 200
        try:
            answer = await self._predict(scope["headers"], receive)
        except RefusedError as error:
            status, answer = error.status, msgspec.json.encode({"detail": error.detail})
        self.metrics.requests.labels(str(status)).inc()
        self.metrics.seconds.observe(time.perf_counter() - start)
        length = (b"content-length", str(len(answer)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [JSON, length]})
        await send({"type": "http.response.body", "body": answer})

    async def _predict(self, headers: list[tuple[bytes, bytes]], receive: Any) -> bytes:
        if self.token and not _may(headers, self.token):
            raise RefusedError(401, "Authorization: Bearer TOKEN is missing or wrong")
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > self.limits.body:
                raise RefusedError(413, f"a request has at most {self.limits.body} bytes")
        served, schema = self.served, self.schema
        rows = schema.rows(body)
        try:
            found = await served.score(rows)
        except UserError as error:
            raise RefusedError(422, str(error)) from None
        self.rows.inc(len(rows))
        predictions = found.tolist()
        if self.journal is not None and CHECK not in headers:
            self.journal.add(served.version, body, predictions)
        return msgspec.json.encode({"version": served.version, "predictions": predictions})

    def _api(self, name: str) -> FastAPI:
        api = FastAPI(title=name, description=str(about))
        run = {"image": os.environ.get(IMAGE), "code": os.environ.get(COMMIT), "pid": os.getpid()}

        @api.get("/health")
        def health() -> dict[str, Any]:
            """The process lives; how it scores, and which versions it refused."""
            fast = self.served.fast is not None
            scoring = {"fast": fast, "why": self.served.why}
            return {"status": "ok", "scoring": scoring, "refused": self.refused}

        @api.get("/ready")
        def ready() -> dict[str, Any]:
            """It answers, and with what."""
            return {"version": self.served.version, **run}

        @api.get("/model")
        def model() -> dict[str, Any]:
            """The version, what it was made of, and the inputs that it takes."""
            facts = {"model": name, "version": self.served.version, **self.served.facts}
            return facts | run | {"inputs": self.served.kinds}

        @api.get("/metrics")
        def metrics() -> Response:
            """For Prometheus."""
            text = prometheus.generate_latest(self.metrics.registry)
            return Response(text, media_type=prometheus.CONTENT_TYPE_LATEST)

        generated = api.openapi

        def openapi() -> dict[str, Any]:
            if api.openapi_schema is None:
                where = "#/components/schemas/{model}"
                asked = self.schema.model.model_json_schema(ref_template=where)
                parts, document = asked.pop("$defs", {}), generated()
                document.setdefault("components", {}).setdefault("schemas", {}).update(parts)
                document["paths"]["/predict"] = {"post": _operation(asked, bool(self.token))}
            return api.openapi_schema or {}

        api.openapi = openapi  # type: ignore[method-assign]
        return api


def _operation(asked: dict, token: bool) -> dict[str, Any]:
    """The description of /predict for OpenAPI."""
    answer = {
        "type": "object",
        "properties": {"version": {"type": "integer"}, "predictions": {"type": "array"}},
        "required": ["version", "predictions"],
    }
    said = {"422": "which fields are wrong", "413": "the body is too large"}
    said |= {"401": "the token is missing or wrong"} if token else {}
    good = {
        "description": "in the order of the rows",
        "content": {"application/json": {"schema": answer}},
    }
    return {
        "summary": "Predictions of one row or many",
        "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
        "responses": {"200": good, **{code: {"description": text} for code, text in said.items()}},
    }


def _may(headers: list[tuple[bytes, bytes]], token: str) -> bool:
    given = dict(headers).get(b"authorization", b"")
    return secrets.compare_digest(given, f"Bearer {token}".encode())


async def follow(service: Service, find: Callable[[], Any], params: Params, seconds: float) -> None:
    """Swap to the version that has the alias, when it moves; what may not serve is refused once."""
    while True:
        await asyncio.sleep(seconds)
        try:
            version = await asyncio.to_thread(find)
        except Exception as error:  # the registry is away: keep answering
            log.warning("the registry cannot be asked: %s", sentence(error) or error)
            continue
        number = str(version.version) if version else None
        if version is None or number in (str(service.served.version), *service.refused):
            continue
        try:
            served = await asyncio.to_thread(Served, version, params)
        except Exception as error:
            service.refused[str(number)] = sentence(error) or f"{type(error).__name__}: {error}"
            service.metrics.refused.inc()
            log.error("version %s may not serve: %s", number, service.refused[str(number)])
            continue
        old = service.served
        service.swap(served)
        old.gather.close()
        log.info("version %s answers in place of version %d", number, old.version)


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
    client, name = tracking.connect(), params.register_.name
    served, journal = Served(require_version(client, name, env), params), None
    if url := os.environ.get("PREDICTION_LOG_URL"):
        folder = Path(os.environ.get("PREDICTION_JOURNAL") or ROOT / ".delivery/journal")
        journal = Journal(folder, Table(url), env, limits.service.journal)
    else:
        log.warning("predictions are not logged: PREDICTION_LOG_URL names no database")
    service = Service(served, limits.service, name, journal)
    host = os.environ.get("SERVICE_HOST", "127.0.0.1")
    log.info("%s version %d: http://%s:%d", name, service.served.version, host, port)
    logging.getLogger("mlflow").setLevel(logging.ERROR)

    async def serve() -> None:
        server = uvicorn.Server(uvicorn.Config(service, log_level="warning", lifespan="off"))
        following = asyncio.create_task(
            follow(service, lambda: find_version(client, name, env), params, limits.service.follow)
        )
        await server.serve(sockets=[listen(port, host)])
        following.cancel()

    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn ends on it, and then raises it again
    try:
        run_loop(serve())
    finally:
        if journal is not None:
            journal.close()
