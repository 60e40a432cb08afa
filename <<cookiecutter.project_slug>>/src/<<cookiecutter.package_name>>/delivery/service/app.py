"""The prediction service: the model whose alias is the environment's name, over HTTP.

The step `service --env dev` answers until it is stopped, and follows the registry: when
the alias moves it loads and checks that version beside the old one, and then swaps. POST /predict takes
`{"rows": [{column: value}]}`; GET /docs shows the rest.
"""

import asyncio
import functools
import gc
import itertools
import logging
import os
import secrets
import signal
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse

from ... import __doc__ as about
from ...experiment import tracking
from ...experiment.column_types import Kinds
from ...experiment.errors import UserError, sentence
from ...experiment.params import ROOT, Data, load
from ...experiment.registry import require_version
from .. import settings
from ..release.releases import CHECK, COMMIT, IMAGE, checked
from .metrics import Metrics
from .online_features import Online, names
from .prediction_log import Journal, Table
from .registry_watcher import Following, attend
from .request_schema import TOKEN, RefusedError, Schema
from .routing import Arm, Routes, Shadow, Split, routes
from .scoring import ServedVersion
from .sockets import Server, host_name, host_names, listen
from .supervisor import PARENT

if sys.platform == "win32":
    from asyncio import run as run_loop
else:
    from uvloop import run as run_loop

JSON = (b"content-type", b"application/json")
MORE = {401: [(b"www-authenticate", b"Bearer")], 405: [(b"allow", b"POST")]}  # headers of a status
END = 20  # seconds in which a client must have sent its request when the service is to end

log = logging.getLogger(__name__)


class Service:
    """An ASGI application: /predict by itself, for speed, and everything else by FastAPI."""

    def __init__(
        self,
        served: ServedVersion,
        limits: settings.Service,
        name: str = "model",
        journal: Journal | None = None,
        data: Data | None = None,
        hosts: frozenset[bytes] | None = None,
    ) -> None:
        self.limits, self.journal, self.metrics = limits, journal, Metrics()
        self.id = data and data.id
        self.views = names(data) if data else ()
        self.online = Online(data) if data and self.views else None
        self.token, self.hosts = os.environ.get("SERVICE_TOKEN", ""), hosts
        self.check = os.environ.get(CHECK, "").encode()
        self.loaded = {str(served.version): served}
        self.refused: dict[str, str] = {}  # version -> why it may not serve
        self.lost: str | None = None  # that it does not follow the registry
        self.shadow: Shadow | None = None
        self.served, self.process, self.numbers = served, uuid.uuid4().hex, itertools.count()
        self.api = self._api(name)
        self.arrange(Routes(str(served.version)))
        self._watch()

    def arrange(self, wanted: Routes) -> None:
        """Answer with these versions from now on; requests that have begun keep the old ones."""
        self.routes, self.served = wanted, self.loaded.get(wanted.main or "", self.served)
        canary, shadow = (self.loaded.get(name or "") for name in (wanted.canary, wanted.shadow))
        canary = None if canary is self.served else canary
        columns = self._columns([served for served in (self.served, canary, shadow) if served])
        order = list(columns)
        self.looked_up = tuple(c for c in self.views if c in columns)
        self.fill = self.online.filler(order) if self.online and self.looked_up else None
        self.schema = Schema(columns, self.limits.rows, self.looked_up)
        self.columns, self.main = columns, self._arm(self.served, columns)
        self.canary = self._arm(canary, columns) if canary else None
        own = [k for k, c in enumerate(order) if c not in self.views]
        place = order.index(self.id) if self.id else None
        self.split = Split(canary.version if canary else 0, wanted.share, own, place)
        if self.shadow is not None:
            self.shadow.close()
        keep = self.journal and self.journal.add
        self.shadow = Shadow(self._arm(shadow, columns), keep) if shadow and keep else None
        self.metrics.version.set(self.served.version)
        self.metrics.share.set(wanted.share if canary else 0)
        self.api.openapi_schema = None
        gc.collect()
        gc.freeze()  # so that no collection, this one neither, looks at all modules and trees again

    def refresh(self) -> None:
        """Read what is new in the online feature store."""
        if self.online and self.looked_up:
            self.online.refresh()

    def _columns(self, those: list[ServedVersion]) -> Kinds:
        """What a row may hold: the main version's inputs, and what the feature views need."""
        columns = Kinds(those[0].kinds)
        for other in those:
            columns |= {c: kind for c, kind in other.kinds.items() if c in self.views}
        more = self.online.needs() if self.online and columns.keys() & self.views else Kinds()
        if self.id:
            more[self.id] = "text"
        return Kinds(columns | {c: kind for c, kind in more.items() if c not in columns})

    def _arm(self, served: ServedVersion, columns: Kinds) -> Arm:
        return Arm(served, columns, self.metrics.rows.labels(str(served.version)))

    def _watch(self) -> None:
        log, online = self.journal, self.online
        sources: dict[str, tuple[str, Callable[[], float]]] = {
            "shadow_dropped": (
                "Requests that the shadow had no time for",
                lambda: self.shadow.dropped if self.shadow else 0,
            )
        }
        if log is not None:
            for key, text in (
                ("size", "Bytes that wait for the database"),
                ("dropped", "Requests that the journal had no room for: act on any"),
                ("rejected", "Rows that the database did not take"),
            ):
                sources[f"prediction_log_{key}"] = text, functools.partial(getattr, log, key)
        if online is not None:
            text = "Times that the online feature store could not be read"
            sources["feature_store_missed"] = text, lambda: online.missed
        self.metrics.watch(sources)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        http = scope["type"] == "http"
        headers = dict(scope["headers"]) if http else {}
        known = not http or self.hosts is None or host_name(headers) in self.hosts
        if known and (not http or scope["path"] != "/predict"):
            await self.api(scope, receive, send)
            return
        start, status = time.perf_counter(), 200
        try:
            if not known:
                raise RefusedError(421, "the header Host names another machine: see SERVICE_HOSTS")
            if scope["method"] != "POST":
                raise RefusedError(405, "predictions are asked for by POST")
            answer = await self._predict(headers, receive, start)
        except RefusedError as error:
            status, answer = error.status, msgspec.json.encode({"detail": error.detail})
        except Exception:
            log.exception("a request failed")
            status, answer = 500, b'{"detail":"the model failed: see the log of the service"}'
        self.metrics.requests.labels(str(status)).inc()
        self.metrics.seconds.observe(time.perf_counter() - start)
        length = (b"content-length", str(len(answer)).encode())
        told = [JSON, length, *MORE.get(status, ())]
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": answer})

    async def _predict(self, headers: dict[bytes, bytes], receive: Any, start: float) -> bytes:
        if self.token and not _same(headers, b"authorization", f"Bearer {self.token}".encode()):
            raise RefusedError(401, "Authorization: Bearer TOKEN is missing or wrong")
        # A page of another site may send other kinds of text without asking.
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != JSON[1]:
            raise RefusedError(415, "Content-Type must be application/json")
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "the request was cut off")  # nobody is there to read it
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > self.limits.body:
                raise RefusedError(413, f"a request has at most {self.limits.body} bytes")
        shadow, rows, looked_up = self.shadow, self.schema.rows(body), None
        if self.fill is not None:
            rows, looked_up = self.fill(rows)
        try:
            scored = await self._score(rows)
        except (UserError, ValueError) as error:  # numbers, say, that are too large for the model
            log.warning("a request cannot be scored: %s", error)
            raise RefusedError(422, str(error)) from None
        request, predictions, versions = self._id(), [None] * len(rows), [0] * len(rows)
        for row, version, prediction in scored:
            predictions[row], versions[row] = prediction, version
        checked = bool(self.check) and _same(headers, b"x-check", self.check)
        if self.journal is not None and not checked:
            record = {"request": request, "time": time.time(), "looked_up": looked_up}
            record["seconds"] = time.perf_counter() - start
            self.journal.add(body, scored, shadow=False, **record)
            if shadow is not None:
                shadow.add(rows, asked=body, **record)
        return msgspec.json.encode(
            {"request": request, "versions": versions, "predictions": predictions}
        )

    def _id(self) -> str:
        """A name for a request: random in the process, then counted, for that is quicker."""
        return f"{self.process}-{next(self.numbers)}"

    async def _score(self, rows: list[tuple]) -> list[tuple[int, int, Any]]:
        """Of each row its number, a version and its prediction; the last one of a row is its answer.

        A canary that fails is answered for by the main version; its own prediction is None.
        """
        main, canary, every = self.main, self.canary, range(len(rows))
        if canary is None or not (taken := [k for k in every if self.split(rows[k])]):
            return await main.answers(every, rows)
        left = sorted({*every} - {*taken})
        both = [canary.answers(taken, rows), main.answers(left, rows)]
        its, found = await asyncio.gather(*both, return_exceptions=True)
        if isinstance(its, BaseException):
            log.error("version %d failed: %s", canary.version, sentence(its) or repr(its))
            self.metrics.failed.inc()
            its = [(k, canary.version, None) for k in taken] + await main.answers(taken, rows)
        if isinstance(found, BaseException):
            raise found
        return its + found

    def _api(self, name: str) -> FastAPI:
        api = FastAPI(title=name, description=str(about))
        run = {
            "image": os.environ.get(IMAGE),
            "code": os.environ.get(COMMIT),
            "parent": os.getppid(),
        }

        @api.get("/health")
        def health() -> dict[str, Any]:
            """The process lives; how it scores, whether it follows the registry, which versions it refused.

            Why is in the log alone: whoever reaches the service may read this.
            """
            scoring = self.served.way()
            said = {"scoring": scoring, "registry": self.lost, "refused": sorted(self.refused)}
            return {"status": "ok", **said}

        @api.get("/ready")
        def ready() -> dict[str, Any]:
            """It answers, and with what; `share` is the canary's, in percent."""
            canary = self.canary and self.canary.version
            shadow = self.shadow and self.shadow.arm.version
            arms = {"canary": canary, "share": self.routes.share, "shadow": shadow}
            return {"version": self.served.version, **arms, **run}

        @api.get("/model")
        def model() -> dict[str, Any]:
            """The version, what it was made of, and the inputs that it takes."""
            facts = {"model": name, "version": self.served.version, **self.served.lineage}
            return facts | run | {"inputs": self.served.kinds}

        @api.get("/metrics", response_class=PlainTextResponse)
        def metrics() -> Response:
            """For Prometheus."""
            text, kind = self.metrics.page()
            return Response(text, media_type=kind)

        generated = api.openapi

        def openapi() -> dict[str, Any]:
            if api.openapi_schema is None:
                document = generated()
                operation, parts = self.schema.operation(bool(self.token))
                components = document.setdefault("components", {})
                components.setdefault("schemas", {}).update(parts)
                if self.token:
                    components["securitySchemes"] = {TOKEN: {"type": "http", "scheme": "bearer"}}
                document["paths"]["/predict"] = {"post": operation}
            return api.openapi_schema or {}

        api.openapi = openapi  # type: ignore[method-assign]
        return api


def _same(headers: dict[bytes, bytes], name: bytes, secret: bytes) -> bool:
    return secrets.compare_digest(headers.get(name, b""), secret)


def run(env: str, port: int) -> None:
    sys.setswitchinterval(0.001)  # threads that carry the log or ask the registry make none wait
    params, limits = load(), settings.load()
    settings.before(env, limits)
    if image := os.environ.get(IMAGE):
        checked(image)
    client, name = tracking.connect(), params.register_.name
    served, journal = ServedVersion(require_version(client, name, env), params), None
    if url := os.environ.get("PREDICTION_LOG_URL"):
        folder = Path(os.environ.get("PREDICTION_JOURNAL") or ROOT / ".delivery/journal")
        journal = Journal(folder, Table(url), env, limits.service.journal)
    else:
        log.warning("predictions are not logged: PREDICTION_LOG_URL names no database")
    host = os.environ.get("SERVICE_HOST", "127.0.0.1")
    service = Service(served, limits.service, name, journal, params.data, host_names(host))
    service.refresh()
    log.info("%s version %d: http://%s:%d", name, service.served.version, host, port)
    logging.getLogger("mlflow").setLevel(logging.ERROR)

    async def serve() -> None:
        options: dict[str, Any] = {"log_level": "warning", "lifespan": "off"}
        server = Server(uvicorn.Config(service, timeout_graceful_shutdown=END, **options))
        following = Following(
            service,
            lambda: routes(client, name, env),
            lambda number: ServedVersion(require_version(client, name, number), params),
            limits.service.follow,
        )
        await following.look()  # a canary answers from the first request on
        tasks = [asyncio.create_task(following.go_on())]
        if parent := os.environ.get(PARENT):
            tasks.append(asyncio.create_task(attend(int(parent))))
        # uvicorn ends on this, and then raises it again.
        signal.signal(signal.SIGTERM, lambda *_: None)
        await server.serve(sockets=listen(port, host))
        for task in tasks:
            task.cancel()

    try:
        run_loop(serve())
    finally:
        if journal is not None:
            journal.close()
