"""Tables and texts that are larger than memory: peak memory, the first step, and SIGKILL.

    python experiments/big_tables.py --folder /tmp/big_tables                # needs 12 GB of disk
    python experiments/big_tables.py --folder /tmp/big_tables --scale 0.02   # quick; writes nothing

Writes experiments/big_tables.md. The data is SYNTHETIC, from seed 0:

- parquet: 10 million rows of 28 numbers, of which one in a hundred is missing, and two columns of words.
- csv: 1 million rows of the same.
- texts: 2 million texts of 44 words on average, out of 50,000 words, in a Parquet file.

Every run is a process of its own: an epoch of a linear model of the table, or of n-grams. One runs undisturbed. Another
one, which takes the encoded rows from the cache of the first, is killed by SIGKILL after its first steps; the same
command continues it, and its parameters must be those of the undisturbed run. The peak of memory is that of the whole
process, Python, JAX and the compiler included: its own (RssAnon, read every 50 ms), and with the pages of the cache of
files that are mapped (VmHWM). The system takes those back when it needs them, and maps up to 2 MB around each row. As
other load changes what a second is worth, the seconds of the
processors before the first step are given too.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import processes

TABLE = Path(__file__).with_suffix(".md")
ROWS = {"parquet": 10_000_000, "csv": 1_000_000, "texts": 2_000_000}
BLOCK = 1 << 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for data, caches and runs; created")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=[*ROWS])
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of rows")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], *map(Path, options.child[1:]))
        return
    lines = []
    for kind in options.only:
        rows = round(ROWS[kind] * options.scale)
        data = write(options.folder, kind, rows)
        shutil.rmtree(options.folder / f"cache-{kind}", ignore_errors=True)
        whole = run(options.folder, kind, data, "whole")
        killed = run(options.folder, kind, data, "killed", kill=True)
        continued = run(options.folder, kind, data, "killed", keep=True)
        lines += table(kind, rows, data, whole, killed, continued)
    text = "\n".join([*heading(), *lines]) + "\n"
    print(text)
    if options.scale == 1:
        TABLE.write_text(text, encoding="utf-8")


def write(folder: Path, kind: str, rows: int) -> Path:
    """Writes a file of this number of rows, a block at a time, unless it is there."""
    import pyarrow
    from pyarrow import csv, parquet

    path = folder / f"{kind}-{rows}.{'csv' if kind == 'csv' else 'parquet'}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    make = texts(generator) if kind == "texts" else numbers(generator)
    partial, writer = folder / f"partial-{path.name}", None
    for first in range(0, rows, BLOCK):
        block = pyarrow.table(make(min(BLOCK, rows - first)))
        writer = writer or (csv.CSVWriter if kind == "csv" else parquet.ParquetWriter)(partial, block.schema)
        writer.write_table(block)
    assert writer is not None
    writer.close()
    return partial.rename(path)


def numbers(generator: np.random.Generator) -> Any:
    weights = generator.normal(size=28)
    colors, towns = np.array(["red", "green", "blue", "white"]), np.array([f"town {index}" for index in range(300)])

    def make(count: int) -> dict[str, Any]:
        values = generator.normal(size=(count, 28)).astype(np.float32)
        color = generator.choice(colors, count)
        label = values @ weights + 2 * (color == "red") + generator.logistic(size=count) > 0
        values[generator.random(values.shape) < 0.01] = np.nan
        columns = {f"x{index}": values[:, index] for index in range(28)}
        return columns | {"color": color, "town": generator.choice(towns, count), "y": label.astype(int)}

    return make


def texts(generator: np.random.Generator) -> Any:
    letters = np.array([*"etaoinshrdlucmfw"])
    words = np.array(["".join(generator.choice(letters, generator.integers(2, 10))) for _ in range(50_000)], object)
    # The n-th word is as frequent as one n-th of the first (Zipf).
    shares = np.cumsum(1 / np.arange(1, len(words) + 1))
    mood = generator.random(len(words)) - 0.5

    def make(count: int) -> dict[str, Any]:
        lengths = np.minimum(generator.geometric(1 / 40, count) + 3, 300)
        drawn = np.searchsorted(shares, generator.random(lengths.sum()) * shares[-1])
        stops = np.cumsum(lengths)
        rows = [" ".join(words[drawn[stop - length : stop]]) for stop, length in zip(stops, lengths, strict=True)]
        return {"text": rows, "label": (np.add.reduceat(mood[drawn], stops - lengths) > 0).astype(int)}

    return make


def run(folder: Path, kind: str, data: Path, name: str, *, keep: bool = False, kill: bool = False) -> dict[str, Any]:
    """Trains in a process; returns what it wrote last, its status and what it wrote at its first steps.

    Args:
      keep: continue the earlier run of this name.
      kill: kill it soon after its first checkpoint.
    """
    directory, cache = folder / f"run-{kind}-{name}", folder / f"cache-{kind}"
    if not keep:
        shutil.rmtree(directory, ignore_errors=True)
    # Compiled programs are shared.
    variables = {"XDG_CACHE_HOME": str(cache), "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    command = [sys.executable, __file__, "--folder", folder, "--child", kind, data, directory]
    began, lines, log = time.time(), [], folder / f"{kind}-{name}.log"
    with log.open("a" if keep else "w") as errors:
        process = subprocess.Popen(
            [*map(str, command)], stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | variables
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                lines.append(json.loads(line))
                saved = any((directory / "checkpoints").glob("[0-9]*"))
                if kill and saved and lines[-1]["step"] > lines[0]["step"]:
                    process.send_signal(signal.SIGKILL)
        status = process.wait()
    print(f"{kind}, {name}: status {status}, {time.time() - began:.0f} s; see {log}", flush=True)
    stored = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    first = lines[1] | {"seconds": lines[1]["time"] - began}
    result = lines[-1] | {"status": status, "begin": lines[0], "first": first, "cache": stored}
    print(json.dumps(result), flush=True)
    return result


def child(kind: str, data: Path, directory: Path) -> None:
    """Trains for an epoch; prints a line for each dispatch."""
    from jaxcls._utils import environment

    environment.configure()
    from jaxcls.data.formats import tables
    from jaxcls.reports.callbacks import Callback
    from jaxcls.tasks.train import train_task
    from jaxcls.training import memory
    from jaxcls.training.settings import Settings

    # Also of fewer rows, nothing is held in memory.
    tables.LARGE_BYTES = vars(memory)["SMALL"] = 0

    anonymous = 0

    def status(name: str) -> int:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines[name].split()[0]) * 1024

    def watch() -> None:
        nonlocal anonymous
        while True:
            anonymous = max(anonymous, status("RssAnon"))
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()

    def tell(**values: Any) -> None:
        peak = status("VmHWM")
        times = {"time": time.time(), "processor": time.process_time()}
        print(json.dumps(times | {"peak": peak, "anonymous": anonymous} | values), flush=True)

    class Teller(Callback):
        def on_train_begin(self, step: int) -> None:
            tell(step=step)

        def on_chunk_end(self, step: int, loss: float) -> None:
            tell(step=step)

    if kind == "texts":
        columns: dict[str, Any] = {"task": "text_csv", "text_column": "text", "label_column": ("label",)}
        columns |= {"model": "ngrams", "batch_size": 512}
    else:
        columns = {"task": "csv", "label_column": ("y",), "model": "linear", "batch_size": 1024}
    settings = Settings(data=data, run_dir=directory, epochs=1, checkpoint_seconds=2.0, quiet=True, **columns)
    result = train_task(settings, callbacks=[Teller()], say=lambda line: print(line, file=sys.stderr, flush=True))
    tell(step=int(result.state.step), parameters=result.report["params_sha256"], scores=result.report["metrics"])


def heading() -> list[str]:
    explanation = (
        f"Written by `python experiments/big_tables.py`. {processes.machine()}; Python {platform.python_version()}, "
        f"jax {version('jax')}, pyarrow {version('pyarrow')}. SYNTHETIC data, seed 0; other processes ran at the same "
        "time."
    )
    columns = [
        "data",
        "file",
        "peak of its own memory",
        "with mapped files",
        "first steps are done after",
        "cache",
        "killed at",
        "continued",
    ]
    names = f"| {' | '.join(columns)} |"
    return ["# Tables and texts larger than memory", "", explanation, "", names, "|---" * len(columns) + "|"]


def table(kind: str, rows: int, data: Path, whole: Any, killed: Any, continued: Any) -> list[str]:
    def first(of: Any) -> str:
        return f"{of['first']['seconds']:.0f} s ({of['first']['processor']:.0f} s of processors)"

    same = "the same parameters" if continued["parameters"] == whole["parameters"] else "OTHER PARAMETERS"
    peaks = (max(one[name] for one in (whole, killed, continued)) for name in ("anonymous", "peak"))
    cells = [
        f"{kind}, {rows:,} rows",
        f"{data.stat().st_size / 1e9:.2f} GB",
        *(f"{peak / 1e9:.2f} GB" for peak in peaks),
        first(whole),
        f"{whole['cache'] / 1e9:.2f} GB",
        f"step {killed['step']:,} of {whole['step']:,}, status {killed['status']}",
        f"from step {continued['begin']['step']:,}, first steps after {first(continued)}, {same}",
    ]
    return [f"| {' | '.join(cells)} |"]


if __name__ == "__main__":
    main()
