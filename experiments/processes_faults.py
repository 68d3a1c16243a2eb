"""Kills one of two processes that train together, at random, and compares the end with that of an undisturbed run.

    python experiments/processes_faults.py --kills 20

Two processes of this machine train on the sample of leaf descriptors, on two simulated devices. Each run is killed a
few times: half of the kills come at any moment from the start on, the others within seconds after an epoch was saved;
which process is killed is random too. Counted is whether the other one ended by itself within the limit, and said why;
then the same command continues. At the end, the hash of the parameters and the losses of all epochs are compared with
those of a run that was left alone. Writes experiments/processes_faults.md.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from processes import machine

TABLE = Path(__file__).with_suffix(".md")
# What a process may take to end after the other one was killed.
LIMIT = 30.0
TASK = ("train", "--task", "leaf", "--source", "sample", "--checkpoint-seconds", "0.5")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills of one of the two processes")
    parser.add_argument("--kills-per-run", type=int, default=5, help="most kills of a run before it may finish")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of a run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the processes that are killed")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    kills: list[dict[str, Any]] = []
    finished: list[bool] = []
    command = [*TASK, "--epochs", str(options.epochs)]
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        _finish(command, Path(folder, "alone"))
        seconds, expected = time.monotonic() - began, _result(Path(folder, "alone"))
        print(f"undisturbed: {seconds:.0f} s, {expected['params_sha256'][:8]}", flush=True)
        while len(kills) < options.kills:
            run = Path(folder, f"run-{len(finished)}")
            for _ in range(min(options.kills_per_run, options.kills - len(kills))):
                kill = _kill(command, run, chance, seconds)
                kills += [kill] if kill else []
                print(kill, flush=True)
                if kill is None:  # it had finished
                    break
            _finish(command, run)
            finished.append(_result(run) == expected)
            print(f"continued to the end: {'equal' if finished[-1] else 'NOT EQUAL'}", flush=True)
    text = table(kills, finished, options)
    print(text)
    TABLE.write_text(text, encoding="utf-8")
    return int(not all(finished) or not all(kill["ended"] and kill["message"] for kill in kills))


def table(kills: list[dict[str, Any]], finished: list[bool], options: argparse.Namespace) -> str:
    """Returns what was counted, as Markdown."""
    waits = sorted(kill["seconds"] for kill in kills)
    at = [sum(kill["process"] == process for kill in kills) for process in (0, 1)]
    return f"""# Killed processes

`python experiments/processes_faults.py --kills {options.kills} --epochs {options.epochs} --seed {options.seed}`, on
{machine()}. Two processes on the loopback interface, one simulated CPU device each.

| | |
|---|---|
| kills of one of two processes (process 0, process 1) | {len(kills)} ({at[0]}, {at[1]}) |
| the other one ended by itself within {LIMIT:g} s | {sum(kill["ended"] for kill in kills)} |
| it said why | {sum(kill["message"] for kill in kills)} |
| seconds until it ended: median, most | {waits[len(waits) // 2]:.1f}, {waits[-1]:.1f} |
| runs that the same command continued to the end | {len(finished)} |
| with parameters and losses equal bit for bit to those of an undisturbed run | {sum(finished)} |
"""


def _start(command: list[str], run: Path) -> list["subprocess.Popen[str]"]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "jaxcls",
                *command,
                "--run-dir",
                run,
                "--distributed",
                f"127.0.0.1:{port},2,{index}",
            ],
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]


def _finish(command: list[str], run: Path) -> None:
    for child in _start(command, run):
        _, errors = child.communicate()
        if child.returncode:
            raise SystemExit(f"a run that was left alone ended with status {child.returncode}:\n{errors}")


def _kill(command: list[str], run: Path, chance: random.Random, seconds: float) -> dict[str, Any] | None:
    """Kills one process of a run; returns None if the run had finished before."""
    history, before = run / "metrics.jsonl", _size(run / "metrics.jsonl")
    children, began = _start(command, run), time.monotonic()
    moment = chance.uniform(0, min(seconds, 60)) if chance.random() < 0.5 else None
    while moment is None or time.monotonic() - began < moment:
        time.sleep(0.05)
        if moment is None and _size(history) != before:
            moment = time.monotonic() - began + chance.uniform(0, 3)
        if any(child.poll() is not None for child in children):
            break
    if all(child.poll() == 0 for child in children):
        return None
    killed = chance.randrange(2)
    children[killed].send_signal(signal.SIGKILL)
    other, at = children[1 - killed], time.monotonic()
    try:
        _, errors = other.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        other.kill()
        _, errors = other.communicate()
        return {"process": killed, "ended": False, "message": bool(errors), "seconds": LIMIT}
    finally:
        children[killed].communicate()
    if other.returncode == 0:
        return None
    line = next((line for line in errors.splitlines() if "ended" in line or "another task died" in line), "")
    waited = time.monotonic() - at
    print(f"  at {at - began:.1f} s, status {other.returncode}: {line[:150]}")
    return {"process": killed, "ended": True, "message": bool(line), "seconds": waited}


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _result(run: Path) -> dict[str, Any]:
    results = json.loads((run / "results.json").read_text())
    lines = (run / "metrics.jsonl").read_text().splitlines()
    times = ("seconds", "examples_per_second")
    history = [{name: value for name, value in json.loads(line).items() if name not in times} for line in lines]
    return {"params_sha256": results["params_sha256"], "metrics": results["metrics"], "history": history}


if __name__ == "__main__":
    sys.exit(main())
