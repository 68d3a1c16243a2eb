"""The server answers as `jaxcls predict` does, refuses what it cannot answer, and loses nothing when it stops."""

import asyncio
import base64
import csv
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
import small_data
import uvicorn
from PIL import Image

from jaxcls._utils.errors import InputError
from jaxcls.cli.main import main
from jaxcls.cli.serving import app
from jaxcls.cli.serving.batcher import Batcher, QueueFull
from jaxcls.cli.serving.server import Server
from jaxcls.cli.serving.service import Service, load
from jaxcls.data.preprocessing import images, tables, texts

CLASSES = ("cat", "dog")


def service(preprocessor, score=lambda arrays: np.full(len(jax.tree.leaves(arrays)[0]), 0.75), **changes):
    options = {"problem": "binary", "class_names": CLASSES, "thresholds": 0.5, "synthetic": False} | changes
    return Service("a <model>", preprocessor, preprocessor.transform, score, **options)


def of_images(**options):
    return service(images.fit(np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1), np.uint8)), **options)


def of_rows(**options):
    rows = {"size": np.array([1.0, 2.0, 3.0, np.nan]), "color": np.array([*"rbrr"], object)}
    return service(tables.fit(rows), **options)


def png(seed=0, size=8):
    with io.BytesIO() as file:
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size), np.uint8)).save(file, "PNG")
        return file.getvalue()


class Client:
    """Requests to an application, without a server."""

    def __init__(self, service, **limits):
        self.asgi = app.create(service, app.Limits(**limits))

    def __call__(self, path="/predict", body=b"", kind="application/json", method=None):
        """The status and the content of an answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        method = method or ("POST" if path == "/predict" else "GET")
        return asyncio.run(self._requests([(path, content, kind, method)]))[0]

    def together(self, bodies):
        return asyncio.run(
            self._requests([("/predict", json.dumps(body).encode(), "application/json", "POST") for body in bodies])
        )

    async def _requests(self, requests):
        started, stopped, events = asyncio.Event(), asyncio.Event(), iter(["startup", "shutdown"])

        async def receive():
            if (event := next(events)) == "shutdown":
                await stopped.wait()
            return {"type": f"lifespan.{event}"}

        async def send(message):
            started.set()

        lifespan = asyncio.create_task(self.asgi({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send))
        await started.wait()
        answers = await asyncio.gather(*(self._one(*request) for request in requests))
        stopped.set()
        await lifespan
        return answers

    async def _one(self, path, content, kind, method):
        messages = []
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
            "headers": [(b"content-type", kind.encode())], "client": ("test", 1), "server": ("test", 80),
        }  # fmt: skip
        parts = iter([{"type": "http.request", "body": content}])

        async def receive():
            return next(parts)

        async def send(message):
            messages.append(message)

        await self.asgi(scope, receive, send)
        text = b"".join(message.get("body", b"") for message in messages).decode()
        try:
            return messages[0]["status"], json.loads(text)
        except ValueError:
            return messages[0]["status"], text


def test_an_image_is_answered_as_a_body_in_base64_and_in_a_form():
    client = Client(of_images())
    expected = {"predictions": [{"predicted": "dog", "probabilities": {"dog": 0.75}}], "synthetic": False}
    assert client(body=png(), kind="image/png") == (200, expected)
    assert client(body={"inputs": [base64.b64encode(png()).decode()]}) == (200, expected)
    form = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n' + png() + b"\r\n--x--\r\n"
    assert client(body=form, kind="multipart/form-data; boundary=x") == (200, expected)


def test_rows_are_read_like_those_of_a_file():
    fitted = of_rows().preprocessor
    read, warnings = of_rows().read(
        [{"size": 2, "color": "r"}, {"size": "2", "color": None}, {"size": None, "color": "x"}]
    )
    from_file = {"size": np.array([2.0, 2.0, np.nan]), "color": np.array(["r", "", "x"], object)}
    jax.tree.map(np.testing.assert_array_equal, fitted.transform(read), fitted.transform(from_file))
    assert re.search("color.* such as 'x'; they count as unknown", *warnings)


@pytest.mark.parametrize(
    ("problem", "names", "thresholds", "scores", "expected"),
    [
        ("multiclass", CLASSES, 0.5, [[0.25, 0.75]], {"predicted": "dog", "probabilities": {"cat": 0.25, "dog": 0.75}}),
        (
            "multilabel", CLASSES, np.array([0.2, 0.8]), [[0.25, 0.75]],
            {"predicted": ["cat"], "probabilities": {"cat": 0.25, "dog": 0.75}},
        ),
        (
            {"a": "binary", "b": "binary"}, {"a": CLASSES, "b": ("no", "yes")}, {"a": 0.5, "b": 0.5},
            {"a": [0.5], "b": [0.25]},
            {"a": {"predicted": "dog", "probabilities": {"dog": 0.5}},
             "b": {"predicted": "no", "probabilities": {"yes": 0.25}}},
        ),
    ],
)  # fmt: skip
def test_answers_name_classes_and_probabilities(problem, names, thresholds, scores, expected):
    one = of_rows(problem=problem, class_names=names, thresholds=thresholds)
    scores = (
        {name: np.array(values) for name, values in scores.items()} if isinstance(scores, dict) else np.array(scores)
    )
    assert one.answers(None, scores) == [expected]


@pytest.mark.parametrize(
    ("make", "body", "kind", "status", "message"),
    [
        (of_images, png(), "text/plain", 415, "the content type is text/plain; it must be application/json or image"),
        (of_rows, png(), "image/png", 415, "it must be application/json"),
        (of_images, b"[", "application/json", 400, "the request is not JSON"),
        (of_images, b"[" * 100_000, "application/json", 400, "the request is not JSON"),
        (of_images, {"input": []}, "application/json", 400, 'the request must be an object {"inputs": [...]}'),
        (of_images, {"inputs": []}, "application/json", 400, "'inputs' must be a list of at least one example"),
        (of_images, {"inputs": ["?"]}, "application/json", 400, "example 1 is not base64"),
        (of_images, {"inputs": [3]}, "application/json", 400, "example 1 is int; it must be an image file in base64"),
        (of_images, b"no image", "image/png", 400, "example 1: not an image"),
        (of_images, b"no form", "multipart/form-data", 400, "the form is damaged"),
        (of_rows, {"inputs": [{"size": 1}]}, "application/json", 400, "example 1 lacks color"),
        (of_rows, {"inputs": [{"size": 1, "color": []}]}, "application/json", 400, "example 1: 'color' is list"),
        (of_images, png(size=200), "image/png", 413, "the request has more than 1,000 bytes"),
    ],
)
def test_what_cannot_be_answered_is_refused(make, body, kind, status, message):
    limits = {"max_bytes": 1000} if status == 413 else {}
    answered, content = Client(make(), **limits)(body=body, kind=kind)
    assert answered == status
    assert message in content["error"]


def test_requests_at_the_same_time_are_computed_together():
    sizes = []

    def score(arrays):
        sizes.append(len(arrays["numeric"]))
        time.sleep(0.05)
        return arrays["numeric"][:, 0] * 0 + 0.5 + arrays["categories"][:, 0] / 10

    bodies = [{"inputs": [{"size": 1, "color": color}]} for color in "rbrbrb"]
    answers = Client(of_rows(score=score), max_batch=4).together(bodies)
    told = [content["predictions"][0]["probabilities"]["dog"] for _, content in answers]
    assert told[:2] == told[2:4] == told[4:]
    assert told[0] != told[1]
    assert sizes[:4] == [1, 1, 4, 4]  # before the first request, to compile and to measure
    assert sum(sizes[4:]) == 6
    assert 1 < max(sizes[4:]) <= 4


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [({1: 1, 8: 2, 64: 8}, [8, 8, 4]), ({1: 1, 8: 2, 64: 2}, [20]), ({1: 1, 8: 9}, [1] * 20), ({1: 2, 4: 2}, [4] * 5)],
    ids=["half of the rate", "a device with large batches", "no gain", "at most 4"],
)
def test_as_many_are_computed_together_as_give_the_most_examples_a_second(seconds, expected):
    sizes = []

    def score(arrays):
        sizes.append(len(arrays))
        return arrays

    async def submit(requests):
        batcher = Batcher(score, seconds, max_waiting=100)
        tasks = [asyncio.create_task(batcher.submit(values)) for values in requests]
        await asyncio.sleep(0)
        running = asyncio.create_task(batcher.run())
        scores = await asyncio.gather(*tasks)
        running.cancel()
        return np.concatenate(scores).tolist()

    assert asyncio.run(submit(np.arange(20).reshape(20, 1))) == [*range(20)]
    assert sizes == expected
    # A single request, unless it has more examples than requests are joined to.
    sizes.clear()
    assert asyncio.run(submit([np.arange(20)])) == [*range(20)]
    assert sizes == (expected if max(seconds) >= 20 else [20])


def test_a_full_queue_refuses_and_a_failure_reaches_only_its_requests():
    async def submit():
        gate = threading.Event()

        def score(arrays):
            gate.wait()
            if arrays[0] == 7:
                raise InputError("seven")
            return arrays

        batcher = Batcher(score, {1: 1.0}, max_waiting=2)
        running = asyncio.create_task(batcher.run())
        tasks = []
        for value in (7, 1, 2):
            tasks.append(asyncio.create_task(batcher.submit(np.array([value]))))
            await asyncio.sleep(0.01)  # the first one is taken from the queue
        with pytest.raises(QueueFull):
            await batcher.submit(np.array([3]))
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        running.cancel()
        return results

    first, *others = asyncio.run(submit())
    assert isinstance(first, InputError)
    assert others == [1, 2]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (of_images, '<input id="file" type="file"'),
        (of_rows, '<input id="c1" data-column="size"'),
        (
            lambda: service(texts.fit(np.array(["a b"], object), vocabulary_size=300, max_length=8)),
            '<textarea id="text"',
        ),
    ],
)
def test_the_page_fits_the_examples_and_escapes_names(make, expected):
    status, page = Client(make())("/")
    assert status == 200
    assert expected in page
    assert "a &lt;model&gt;" in page
    assert "<model>" not in page


def test_metrics_count_requests():
    client = Client(of_rows())
    client(body={"inputs": []})
    client(body={"inputs": [{"size": 1, "color": "r"}]})
    _, text = client("/metrics")
    assert 'jaxcls_requests_total{path="/predict",status="400"} 1.0' in text
    assert 'jaxcls_requests_total{path="/predict",status="200"} 1.0' in text
    assert client("/health") == (200, "ok\n")


def test_a_served_run_answers_with_the_bits_of_predict(tmp_path, capsys):
    run = tmp_path / "run"
    assert main([
        "train", "--task", "fashion_mnist", "--model", "mlp", "--epochs", "1", "--quiet", "--data-dir",
        str(small_data.write(tmp_path / "data")), "--run-dir", str(run),
    ]) == 0  # fmt: skip
    (tmp_path / "a.png").write_bytes(png(1, 28))
    command = [
        "predict",
        "--run-dir",
        str(run),
        "--input",
        str(tmp_path / "a.png"),
        "--output",
        str(tmp_path / "a.csv"),
    ]
    assert main(command) == 0
    with (tmp_path / "a.csv").open(encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    expected = {name.removeprefix("probability_"): float(row[name]) for name in row if name.startswith("probability_")}
    # On two devices, as these tests.
    code = (
        "import sys, jax; jax.config.update('jax_num_cpu_devices', 2)\n"
        "from jaxcls.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    options = ["serve", "--run-dir", str(run), "--port", "0", "--max-batch", "1"]
    with subprocess.Popen([sys.executable, "-uc", code, *options], stdout=subprocess.PIPE, text=True) as server:
        port = int(re.search(r"http://127.0.0.1:(\d+)", server.stdout.readline())[1])
        answer = posted(port, png(1, 28), "image/png")
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) in (0, -signal.SIGTERM)
    assert answer["predictions"][0]["probabilities"] == expected


def test_a_row_is_explained_against_training_rows(small_run):
    directory, _ = small_run("csv")
    loaded = load(directory)
    columns = loaded.preprocessor.columns
    client = Client(loaded)
    row = {name: words[0] if words else "1.0" for name, words in columns.items()}
    status, content = client("/explain", {"inputs": [row]}, method="POST")
    assert status == 200, content
    [explained] = content["explanations"]
    assert {name for name, *_ in explained["why"]["columns"]} == set(columns)
    status, content = client("/explain", {"inputs": [row] * 9}, method="POST")
    assert (status, content["error"]) == (400, "9 examples; at most 8 are explained at a time.")
    assert "Why?" in client("/")[1]
    # What cannot be explained has no such address.
    assert Client(of_rows())("/explain", {"inputs": [row]}, method="POST")[0] == 404


def posted(port, body, kind):
    url = f"http://127.0.0.1:{port}/predict"
    with urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": kind}), timeout=60) as answer:
        return json.load(answer)


def test_requests_that_arrived_are_answered_before_a_server_stops():
    opened, arrived = threading.Event(), threading.Semaphore(0)

    def score(arrays):
        arrived.release()
        opened.wait()
        return np.full(len(arrays["numeric"]), 0.75)

    opened.set()
    application = app.create(of_rows(score=score), app.Limits(max_batch=1))
    for _ in range(2):  # to compile and to measure
        arrived.acquire()
    opened.clear()
    body = json.dumps({"inputs": [{"size": 1, "color": "r"}]}).encode()
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(3) as clients:
        server = Server(uvicorn.Config(application, log_level="warning"))
        running = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        running.start()
        port = listening.getsockname()[1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b"ok\n"
        answers = [clients.submit(posted, port, body, "application/json") for _ in range(3)]
        arrived.acquire()
        while "jaxcls_waiting_examples 2.0" not in fetched(port, "/metrics"):
            time.sleep(0.01)
        server.should_exit = True
        time.sleep(0.3)
        # On a connection that was open, a request that crossed the signal is answered, and told to use another one.
        connection.request("GET", "/health")
        with connection.getresponse() as late:
            assert (late.read(), late.headers["Connection"]) == (b"ok\n", "close")
        opened.set()
        for answer in answers:
            assert answer.result()["predictions"][0]["probabilities"] == {"dog": 0.75}
        running.join()


def fetched(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-batch", "0"], "--max-batch is 0; it must be at least 1"),
        (["--run-dir", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_are_refused(options, message, capsys):
    assert main(["serve", *(["--run-dir", "x"] if "--run-dir" not in options else []), *options]) == 2
    assert message in capsys.readouterr().err
