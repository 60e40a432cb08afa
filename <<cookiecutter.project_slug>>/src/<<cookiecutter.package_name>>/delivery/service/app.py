"""The prediction service: the model whose alias is the environment's name, over HTTP.

The step `service --env dev` answers until it is stopped. When the alias moves, it loads and checks
that version beside the old one, and then swaps. POST /predict takes `{"rows": [{column: value}]}`;
GET /docs shows the rest.
"""

import asyncio
import gc
import itertools
import logging
import os
import secrets
import signal
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBearer

from ... import __doc__ as about
from ...experiment import tracking
from ...experiment.column_types import Kinds
from ...experiment.errors import UserError, sentence
from ...experiment.params import ROOT, Data, load
from .. import settings
from ..release.releases import CHECK, COMMIT, IMAGE, VERSION, checked
from .metrics import Metrics
from .online_features import OnlineFeatures, view_names
from .prediction_log import Journal, PredictionTable
from .registry_watcher import RegistryWatcher
from .request_schema import REFUSALS, Answer, RefusedError, RequestSchema
from .routing import CanarySplit, Routes, RowScore, Shadow, VersionScorer
from .scoring import ServedVersion
from .sockets import DrainingServer, host_name, host_names, listen
from .supervisor import PARENT, end_with
from .version_store import VersionStore

if sys.platform == "win32":
    from asyncio import run as run_loop
else:
    from uvloop import run as run_loop

JSON = (b"content-type", b"application/json")
EXTRA_HEADERS = {401: [(b"www-authenticate", b"Bearer")], 405: [(b"allow", b"POST")]}
SHUTDOWN_SECONDS = 20  # in which a client must have sent its request when the service ends

log = logging.getLogger(__name__)


class Service:
    """An ASGI application. It answers /predict itself, for speed; FastAPI answers everything else."""

    main: VersionScorer
    canary: VersionScorer | None

    def __init__(
        self,
        served: ServedVersion,
        limits: settings.Service,
        name: str = "model",
        journal: Journal | None = None,
        data: Data | None = None,
        hosts: frozenset[bytes] | None = None,
    ) -> None:
        self.name, self.limits, self.journal, self.hosts = name, limits, journal, hosts
        self.id_column = data and data.id
        self.views = view_names(data) if data else ()
        self.online = OnlineFeatures(data) if data and self.views else None
        self.token = os.environ.get("SERVICE_TOKEN", "")
        self.check_token = os.environ.get(CHECK, "").encode()  # of a deployment's own requests
        self.loaded = {str(served.version): served}
        self.refused: dict[str, str] = {}  # version -> why it may not serve
        self.follows_registry = True
        self.shadow: Shadow | None = None
        self.process_id, self.request_numbers = uuid.uuid4().hex, itertools.count()
        self.metrics, self.api = self._metrics(), self._api()
        self.route(Routes(str(served.version)))

    def route(self, routes: Routes) -> None:
        """Answer with these versions from now on; requests that have begun keep the old ones."""
        main = self.loaded.get(routes.main or "") or self.main.served
        canary, shadow = (self.loaded.get(n or "") for n in (routes.canary, routes.shadow))
        canary = None if canary is main else canary
        columns = self._columns([served for served in (main, canary, shadow) if served])
        names = list(columns)
        self.routes = routes
        self.looked_up = tuple(c for c in self.views if c in columns)
        self.fill = self.online.filler(names) if self.online and self.looked_up else None
        self.schema = RequestSchema(columns, self.limits.rows, self.looked_up)
        self.main = self._scorer(main, columns)
        self.canary = self._scorer(canary, columns) if canary else None
        own = [k for k, column in enumerate(names) if column not in self.views]
        place = names.index(self.id_column) if self.id_column else None
        self.split = CanarySplit(canary.version if canary else 0, routes.share, own, place)
        if self.shadow is not None:
            self.shadow.close()
        keep = self.journal and self.journal.add
        self.shadow = Shadow(self._scorer(shadow, columns), keep) if shadow and keep else None
        self.metrics.version.set(main.version)
        self.metrics.share.set(routes.share if canary else 0)
        self._describe_predict()
        gc.collect()
        gc.freeze()  # no later collection looks at all modules and trees again

    def refresh(self) -> None:
        """Read what is new in the online feature store."""
        if self.online and self.looked_up:
            self.online.refresh()

    def _columns(self, versions: list[ServedVersion]) -> Kinds:
        """What a row may hold: the main version's inputs, and what the feature views need."""
        columns = Kinds(versions[0].kinds)
        for other in versions:
            columns |= {c: kind for c, kind in other.kinds.items() if c in self.views}
        more = self.online.key_columns() if self.online and columns.keys() & self.views else Kinds()
        if self.id_column:
            more[self.id_column] = "text"
        return Kinds(columns | {c: kind for c, kind in more.items() if c not in columns})

    def _scorer(self, served: ServedVersion, columns: Kinds) -> VersionScorer:
        return VersionScorer(served, columns, self.metrics.rows.labels(str(served.version)))

    def _metrics(self) -> Metrics:
        metrics, journal, online = Metrics(), self.journal, self.online
        shadow_dropped = lambda: self.shadow.dropped if self.shadow else 0  # noqa: E731
        metrics.gauge("shadow_dropped", "Requests that the shadow had no time for", shadow_dropped)
        if journal is not None:
            texts = {
                "size": "Bytes that wait for the database",
                "dropped": "Requests that the journal had no room for: act on any",
                "rejected": "Rows that the database did not take",
            }
            for name, text in texts.items():
                value = lambda name=name: getattr(journal, name)  # noqa: E731
                metrics.gauge(f"prediction_log_{name}", text, value)
        if online is not None:
            text = "Times that the online feature store could not be read"
            metrics.gauge("feature_store_missed", text, lambda: online.missed)
        return metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        headers = dict(scope["headers"])
        known_host = self.hosts is None or host_name(headers) in self.hosts
        if known_host and scope["path"] != "/predict":
            await self.api(scope, receive, send)
            return
        start, status = time.perf_counter(), 200
        try:
            if not known_host:
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
        sent = [JSON, length, *EXTRA_HEADERS.get(status, ())]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": answer})

    async def _predict(self, headers: dict[bytes, bytes], receive: Any, start: float) -> bytes:
        if self.token and not _same(headers, b"authorization", f"Bearer {self.token}".encode()):
            raise RefusedError(401, "Authorization: Bearer TOKEN is missing or wrong")
        # A page of another site may send other kinds of text without asking.
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != JSON[1]:
            raise RefusedError(415, "Content-Type must be application/json")
        body = await self._body(receive)
        shadow, rows, looked_up = self.shadow, self.schema.rows(body), None
        if self.fill is not None:
            rows, looked_up = self.fill(rows)
        try:
            scores = await self._score(rows)
        except (UserError, ValueError) as error:  # such as numbers that are too large for the model
            log.warning("a request cannot be scored: %s", error)
            raise RefusedError(422, str(error)) from None
        # Random in the process, then counted: that is quicker than random each time.
        request = f"{self.process_id}-{next(self.request_numbers)}"
        if self.journal is not None and not (
            self.check_token and _same(headers, b"x-check", self.check_token)
        ):
            record = {"request": request, "time": time.time(), "looked_up": looked_up}
            record["seconds"] = time.perf_counter() - start
            self.journal.add(body, scores, shadow=False, **record)
            if shadow is not None:
                shadow.add(rows, body=body, **record)
        versions, predictions = [0] * len(rows), [None] * len(rows)
        for k, version, prediction in scores:
            versions[k], predictions[k] = version, prediction
        return msgspec.json.encode(
            {"request": request, "versions": versions, "predictions": predictions}
        )

    async def _body(self, receive: Any) -> bytes:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "the request was cut off")  # nobody is there to read it
            body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > self.limits.body:
                raise RefusedError(413, f"a request has at most {self.limits.body} bytes")
        return body

    async def _score(self, rows: list[tuple]) -> list[RowScore]:
        """The scores of each row; the last one of a row is its answer.

        A row on which the canary fails is answered by the main version; the canary's prediction is None.
        """
        main, canary, every = self.main, self.canary, range(len(rows))
        if canary is None or not (chosen := [k for k in every if self.split(rows[k])]):
            return await main.score(every, rows)
        others = sorted({*every} - {*chosen})
        both = [canary.score(chosen, rows), main.score(others, rows)]
        canary_scores, main_scores = await asyncio.gather(*both, return_exceptions=True)
        if isinstance(canary_scores, BaseException):
            reason = sentence(canary_scores) or repr(canary_scores)
            log.error("version %d failed: %s", canary.version, reason)
            self.metrics.failed.inc()
            failures = [(k, canary.version, None) for k in chosen]
            canary_scores = failures + await main.score(chosen, rows)
        if isinstance(main_scores, BaseException):
            raise main_scores
        return canary_scores + main_scores

    def _api(self) -> FastAPI:
        """The routes beside /predict, and the pages that describe all of them."""
        api = FastAPI(title=self.name, description=str(about), redirect_slashes=False)
        names = {"image": IMAGE, "code": COMMIT}
        release = {name: os.environ.get(variable) for name, variable in names.items()}
        run = {**release, "parent": os.getppid()}

        @api.get("/health")
        def health() -> dict[str, Any]:
            """The process lives; how it scores, whether it follows the registry, which versions it refused.

            The log alone says why: anybody who reaches the service may read this.
            """
            registry = None if self.follows_registry else "not followed"
            scoring, refused = self.main.served.way(), sorted(self.refused)
            return {"status": "ok", "scoring": scoring, "registry": registry, "refused": refused}

        @api.get(
            "/ready",
            responses={503: {"description": "the feature store lacks what the model takes"}},
        )
        def ready() -> dict[str, Any]:
            """It answers, and with which versions; `share` is the canary's, in percent."""
            if self.online and (lacking := self.online.lacking(self.looked_up)):
                raise HTTPException(503, f"the online feature store: {lacking}")
            canary = self.canary and self.canary.version
            shadow = self.shadow and self.shadow.scorer.version
            versions = {"version": self.main.version, "canary": canary, "shadow": shadow}
            return {**versions, "share": self.routes.share, **run}

        @api.get("/model")
        def model() -> dict[str, Any]:
            """The version, what it was made of, and the inputs that it takes."""
            served = self.main.served
            version = {"model": self.name, "version": served.version, **served.lineage}
            return version | run | {"inputs": served.kinds}

        @api.get("/metrics", response_class=PlainTextResponse)
        def metrics() -> Response:
            """For Prometheus."""
            text, kind = self.metrics.page()
            return Response(text, media_type=kind)

        return api

    def _describe_predict(self) -> None:
        """Let the pages describe /predict with the columns of now; `__call__` answers it."""
        api, requests = self.api, self.schema.model
        api.router.routes = [route for route in api.routes if route.path != "/predict"]  # type: ignore[attr-defined]
        api.openapi_schema = None  # FastAPI keeps it otherwise
        token = [Depends(HTTPBearer())] if self.token else []

        @api.post("/predict", responses=REFUSALS, dependencies=token)
        def predict(rows: requests) -> Answer:  # type: ignore[valid-type]
            """Predictions of one row or many, in the order of the rows."""
            raise NotImplementedError


def _same(headers: dict[bytes, bytes], name: bytes, secret: bytes) -> bool:
    return secrets.compare_digest(headers.get(name, b""), secret)


def run(env: str, port: int) -> None:
    """Serve the model of an environment on a port until SIGTERM; raises UserError if it cannot."""
    if sys.platform == "win32":
        raise UserError(
            "the service runs on Linux and macOS: on Windows start it in WSL, or its image"
        )
    sys.setswitchinterval(0.001)  # seconds: requests wait less for the threads of log and registry
    params, limits = load(), settings.load()
    settings.before(env, limits)
    if image := os.environ.get(IMAGE):
        checked(image)
    os.chdir(ROOT)  # the folder that a release was started in is gone once it was built anew
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds
    tracking.open_store()
    models = Path(os.environ.get("MODEL_CACHE") or ROOT / ".delivery/models") / env
    store, name = VersionStore(env, params, models, os.environ.get(VERSION)), params.register_.name
    routes = store.start()
    served, journal = store.load(str(routes.main)), None
    if url := os.environ.get("PREDICTION_LOG_URL"):
        folder = Path(os.environ.get("PREDICTION_JOURNAL") or ROOT / ".delivery/journal")
        journal = Journal(folder, PredictionTable(url), env, limits.service.journal)
    else:
        log.warning("predictions are not logged: PREDICTION_LOG_URL names no database")
    host = os.environ.get("SERVICE_HOST", "127.0.0.1")
    service = Service(served, limits.service, name, journal, params.data, host_names(host))
    service.follows_registry = not store.away
    service.refresh()
    log.info("%s version %d: http://%s:%d", name, served.version, host, port)
    logging.getLogger("mlflow").setLevel(logging.ERROR)

    async def serve() -> None:
        options: dict[str, Any] = {"log_level": "warning", "lifespan": "off"}
        options["timeout_graceful_shutdown"] = SHUTDOWN_SECONDS
        server = DrainingServer(uvicorn.Config(service, **options))
        where = (store.routes, store.load, store.keep)
        watcher = RegistryWatcher(service, limits.service.follow, *where)
        await watcher.take(routes)  # a canary answers from the first request on
        tasks = [asyncio.create_task(watcher.follow())]
        if parent := os.environ.get(PARENT):
            tasks.append(asyncio.create_task(end_with(int(parent))))
        # uvicorn ends on this signal, and then raises it again.
        signal.signal(signal.SIGTERM, lambda *_: None)
        await server.serve(sockets=listen(port, host))
        for task in tasks:
            task.cancel()

    try:
        run_loop(serve())
    finally:
        if journal is not None:
            journal.close()
