"""The rate and the waiting times of `jaxcls serve` under load, next to the compiled program alone.

    python experiments/serving.py --run-dir RUN --input FOLDER --clients 1 16 64

Starts the server of a run of images, and posts the image files of a folder in turn from a second process, from as many
connections at a time as there are clients, each of which posts again as soon as it has its answer: with one image a
request, and with 16 in a form. Next to it: the rate
of the program on full batches of 64 decoded images in one process, and that of decoding. At the end, SIGTERM arrives
while all clients post; it counts the requests that were sent and not answered.
"""

import argparse
import asyncio
import itertools
import json
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import processes

TABLE = Path(__file__).with_suffix(".md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True, help="a run on images")
    parser.add_argument("--input", type=Path, required=True, help="a folder of images")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 16], help="of a request")
    parser.add_argument("--post", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.post:
        print(json.dumps(asyncio.run(post(options, *map(int, options.post)))))
        return
    program, decoding = alone(options)
    lines = [HEAD.format(machine=processes.machine(), run=options.run_dir.name, program=program, decoding=decoding)]
    for images, clients in itertools.product(options.images, options.clients):
        result = served(options, clients, images)
        share = result["rate"] / program
        lines.append(
            f"| {images} | {clients} | {result['rate']:,.0f} | {share:.2f} | {result['p50']:.1f} | "
            f"{result['p99']:.1f} | {result['most']:.1f} | {result['lost']} |"
        )
        print(lines[-1])
    TABLE.write_text("\n".join([*lines, "", NOTE]) + "\n", encoding="utf-8")


def alone(options: argparse.Namespace) -> tuple[float, float]:
    """Images a second of the compiled program on batches of 64, and of decoding and the program together."""
    import jax

    from jaxcls.cli.serving import service

    model = service.load(options.run_dir)
    files = [path.read_bytes() for path in sorted(options.input.iterdir())]
    files = [files[index % len(files)] for index in range(64)]
    inputs, _ = model.read(files)
    arrays = model.encode(inputs)

    def rate(action: object) -> float:
        action()  # type: ignore[operator]
        rates = []
        for _ in range(5):
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < 1:
                action()  # type: ignore[operator]
                count += 64
            rates.append(count / (time.perf_counter() - start))
        return statistics.median(rates)

    return rate(lambda: jax.block_until_ready(model.score(arrays))), rate(lambda: model.encode(model.read(files)[0]))


def served(options: argparse.Namespace, clients: int, images: int) -> dict[str, float]:
    """Images a second, milliseconds of a request, and requests without an answer."""
    command = [sys.executable, "-um", "jaxcls", "serve", "--run-dir", str(options.run_dir), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = re.search(r":(\d+) ", server.stdout.readline())
        assert address is not None
        words = [*sys.argv[1:], "--post", address[1], str(clients), str(images)]
        with subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True) as client:
            time.sleep(options.seconds + 2)
            server.send_signal(signal.SIGTERM)
            output, _ = client.communicate()
        result: dict[str, float] = json.loads(output)
        return result


async def post(options: argparse.Namespace, port: int, clients: int, images: int) -> dict[str, float]:
    """Posts until the server closes the connections."""
    kind, files = bodies([path.read_bytes() for path in sorted(options.input.iterdir())], images)
    times: list[float] = []
    lost = 0
    start = time.perf_counter()

    async def client(number: int) -> None:
        nonlocal lost
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            content = files[(number + len(times)) % len(files)]
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}"
            sent = time.perf_counter()
            try:
                writer.write(head.encode() + b"\r\n\r\n" + content)
                answer = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                lost += 1
                return
            except OSError:
                # The server had closed the connection before the request.
                return
            length = re.search(rb"(?i)content-length: (\d+)", answer)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            assert length is not None
            await reader.readexactly(int(length[1]))
            if 1 < sent - start < 1 + options.seconds:
                times.append(time.perf_counter() - sent)
            if b"connection: close" in answer.lower():
                return

    await asyncio.gather(*map(client, range(clients)))
    ordered = sorted(1000 * one for one in times)
    return {
        "rate": images * len(times) / options.seconds, "p50": ordered[len(ordered) // 2],
        "p99": ordered[int(0.99 * len(ordered))], "most": ordered[-1], "lost": lost,
    }  # fmt: skip


def bodies(files: list[bytes], images: int) -> tuple[str, list[bytes]]:
    """The content type and the bodies of requests with this many images."""
    if images == 1:
        return "image/png", files
    part = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n%b\r\n'
    parts = [part % content for content in files * 2]
    return "multipart/form-data; boundary=x", [
        b"".join(parts[start : start + images]) + b"--x--\r\n" for start in range(len(files))
    ]


HEAD = """# Serving under load

Written by `python experiments/serving.py`, whose help tells how it measures, on {machine}; {run}.
Server and clients share the processor.

The compiled program alone, on batches of 64: {program:,.0f} images a second; decoding the files: {decoding:,.0f}.

| images each | clients | images a second | of the program | median ms | p99 ms | most ms | lost on SIGTERM |
|---|---|---|---|---|---|---|---|"""

NOTE = """A request of one small image costs as much time of the processor in HTTP, with the client, as in the program:
with 16 images each, the server reaches the rate of the program."""

if __name__ == "__main__":
    main()
