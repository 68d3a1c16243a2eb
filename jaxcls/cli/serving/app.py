"""The HTTP interface of a service: predictions, a page to try it, health, readiness and metrics.

POST /predict   {"inputs": [...]} as application/json: texts, rows as objects, or images in base64;
                or images as image/png, image/jpeg, ..., or as the files of multipart/form-data
POST /explain   the same; why these predictions, of a run that can be explained
GET  /          a page to try it
GET  /health    200 while it answers, which is after its programs are compiled
GET  /ready     likewise
GET  /metrics   for Prometheus
"""

import asyncio
import contextlib
import functools
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import anyio.to_thread
import jax
import jinja2
import prometheus_client as prometheus
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from jaxcls._utils.errors import InputError
from jaxcls.cli.serving.batcher import Batcher, QueueFull
from jaxcls.cli.serving.service import Service
from jaxcls.data.batching import FEW

# Explanations are computed one request at a time; each takes many gradients.
_MOST_EXPLAINED, _MOST_EXPLAINING = 8, 8
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Limits(NamedTuple):
    """What a server accepts.

    Attributes:
      max_batch: the most examples of several requests that are computed together; with 1, each request is computed
        alone.
      max_waiting: the most examples that wait for their computation; further requests are refused with status 503.
      wait_seconds: how long a batch that is not full waits for more requests.
      max_bytes: the most bytes of a request.
    """

    max_batch: int = 64
    max_waiting: int = 1024
    wait_seconds: float = 0.0
    max_bytes: int = 1 << 24


def create(service: Service, limits: Limits | None = None) -> Starlette:
    """Returns the ASGI application of a service, for any ASGI server; its programs are compiled before.

    >>> from jaxcls.cli.serving import service
    >>> application = create(service.load("runs/leaf-1a2b3c4d"))  # doctest: +SKIP
    """
    limits = limits or Limits()
    sizes = {size for size in FEW if size < limits.max_batch} | {limits.max_batch}
    return _App(service, limits, {size: _seconds(service, size) for size in sorted(sizes)}).asgi


def _seconds(service: Service, size: int) -> float:
    """Compiles the program of a size of batches, and returns the seconds that one takes."""
    arrays = service.of_shape(size)
    jax.block_until_ready(service.score(arrays))
    start = time.perf_counter()
    jax.block_until_ready(service.score(arrays))
    return time.perf_counter() - start


class _App:
    def __init__(self, service: Service, limits: Limits, seconds: dict[int, float]):
        self._service, self._limits, self._seconds = service, limits, seconds
        self._batcher: Batcher | None = None
        self._explaining: anyio.CapacityLimiter | None = None
        self._page = _page(service)
        self._registry = registry = prometheus.CollectorRegistry()
        self._requests = prometheus.Counter("jaxcls_requests", "requests", ["path", "status"], registry=registry)
        self._latency = prometheus.Histogram(
            "jaxcls_request_seconds", "from a request to its answer", ["path"], buckets=_SECONDS, registry=registry
        )
        self._batch_size = prometheus.Histogram(
            "jaxcls_batch_examples", "examples computed together", buckets=(1, 8, 64, 512, 4096), registry=registry
        )
        self._batch_seconds = prometheus.Histogram(
            "jaxcls_batch_seconds", "the computation of a batch", buckets=_SECONDS, registry=registry
        )
        waiting = prometheus.Gauge("jaxcls_waiting_examples", "examples in the queue", registry=registry)
        waiting.set_function(lambda: self._batcher.waiting if self._batcher else 0)
        routes = [
            Route("/", self._index),
            Route("/predict", functools.partial(self._counted, self._predict), methods=["POST"]),
            Route("/health", _ok),
            Route("/ready", _ok),
            Route("/metrics", self._metrics),
        ]
        if service.explain is not None:
            routes.append(Route("/explain", functools.partial(self._counted, self._explain), methods=["POST"]))
        handlers: Any = {HTTPException: _refused}
        self.asgi = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        limits = self._limits
        self._batcher = Batcher(
            self._service.score,
            self._seconds,
            max_waiting=limits.max_waiting,
            wait_seconds=limits.wait_seconds,
            on_batch=self._count_batch,
        )
        self._explaining = anyio.CapacityLimiter(1)
        running = asyncio.create_task(self._batcher.run())
        yield
        running.cancel()

    def _count_batch(self, count: int, seconds: float) -> None:
        self._batch_size.observe(count)
        self._batch_seconds.observe(seconds)

    async def _counted(self, answer: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
        started, path, status = time.monotonic(), request.url.path, 500
        try:
            response = await answer(request)
            status = 200
        except InputError as error:
            status = 400
            raise HTTPException(status, str(error)) from error
        except HTTPException as refusal:
            status = refusal.status_code
            raise
        finally:
            self._requests.labels(path, status).inc()
            self._latency.labels(path).observe(time.monotonic() - started)
        return response

    async def _predict(self, request: Request) -> Response:
        assert self._batcher is not None
        examples = await self._examples(request)
        try:
            # In threads: decoding images and texts takes time, and releases the interpreter.
            inputs, warnings, arrays = await anyio.to_thread.run_sync(self._read, examples)
            scores = await self._batcher.submit(arrays)
        except QueueFull:
            raise _busy(f"{self._batcher.waiting} examples wait already") from None
        return self._answer("predictions", self._service.answers(inputs, scores), warnings)

    async def _explain(self, request: Request) -> Response:
        assert self._service.explain is not None
        assert self._explaining is not None
        examples = await self._examples(request)
        if len(examples) > _MOST_EXPLAINED:
            raise HTTPException(400, f"{len(examples)} examples; at most {_MOST_EXPLAINED} are explained at a time.")
        if self._explaining.statistics().tasks_waiting >= _MOST_EXPLAINING:
            raise _busy(f"{_MOST_EXPLAINING} requests for explanations wait already")
        inputs, warnings = await anyio.to_thread.run_sync(self._service.read, examples)
        explained = await anyio.to_thread.run_sync(self._service.explain, inputs, limiter=self._explaining)
        return self._answer("explanations", explained, warnings)

    def _answer(self, name: str, values: list[dict[str, Any]], warnings: list[str]) -> Response:
        more = {"warnings": warnings} if warnings else {}
        return JSONResponse({name: values, "synthetic": self._service.synthetic} | more)

    def _read(self, examples: list[Any]) -> tuple[Any, list[str], Any]:
        inputs, warnings = self._service.read(examples)
        return inputs, warnings, self._service.encode(inputs)

    async def _examples(self, request: Request) -> list[Any]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        takes_images = self._service.takes == "image"
        accepted = ("application/json", *(("image/", "multipart/form-data") if takes_images else ()))
        if not kind.startswith(accepted):
            right = " or ".join(accepted).replace("image/", "image/*")
            raise HTTPException(415, f"the content type is {kind or 'missing'}; it must be {right}.")
        body = await self._body(request)
        if kind.startswith("image/"):
            return [body]
        if kind.startswith("multipart/"):
            return await _files(request, body)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, f"the request is not JSON: {error}.") from None
        if not isinstance(content, dict) or content.keys() != {"inputs"}:
            raise HTTPException(400, 'the request must be an object {"inputs": [...]}.')
        inputs: list[Any] = content["inputs"]
        return inputs

    async def _body(self, request: Request) -> bytes:
        parts, total = [], 0
        async for part in request.stream():
            total += len(part)
            if total > self._limits.max_bytes:
                raise HTTPException(413, f"the request has more than {self._limits.max_bytes:,} bytes (--max-bytes).")
            parts.append(part)
        return b"".join(parts)

    async def _metrics(self, request: Request) -> Response:
        return Response(prometheus.generate_latest(self._registry), media_type=prometheus.CONTENT_TYPE_LATEST)

    async def _index(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        of_page = f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src blob: data:"
        policy = f"default-src 'none'; {of_page}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        return HTMLResponse(self._page(nonce=nonce), headers={"Content-Security-Policy": policy})


async def _ok(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _refused(request: Request, refusal: HTTPException) -> Response:
    return JSONResponse({"error": refusal.detail}, refusal.status_code, headers=refusal.headers)


def _busy(why: str) -> HTTPException:
    return HTTPException(503, f"{why}; try again, or with fewer at a time.", headers={"Retry-After": "1"})


async def _files(request: Request, body: bytes) -> list[bytes]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await MultiPartParser(request.headers, stream()).parse()  # type: ignore[arg-type]
    except MultiPartException as error:
        raise HTTPException(400, f"the form is damaged: {error.message}") from error
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(form.close)
        return [await value.read() for _, value in form.multi_items() if not isinstance(value, str)]


def _page(service: Service) -> Any:
    source = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True).from_string(source)
    example = {"text": '{"inputs": ["a text"]}', "row": '{"inputs": [{"column": 1.5, ...}]}'}
    values = {
        "title": service.title,
        "synthetic": service.synthetic,
        "takes": service.takes,
        "columns": service.columns,
        "explains": service.explain is not None,
        "example": example.get(service.takes, "an image file as the body"),
    }
    return functools.partial(template.render, **values)
