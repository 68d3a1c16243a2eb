"""The processes that `jaxcls launch` starts: their output, their signals, and their ends. They run a program in place
of jaxcls.
"""

import os
import signal
import threading

import pytest

from jaxcls._utils.errors import InputError
from jaxcls.cli import launcher

# The last words of its command are HOST:PORT,N,I of --distributed.
BEGIN = """
import os, signal, sys, time
_, count, index = sys.argv[-1].split(",")
print("hello", *sys.argv[1:-1], os.environ["JAX_LOCAL_DEVICE_IDS"], file=sys.stderr, flush=True)
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes what the processes run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jaxcls").mkdir()
    (tmp_path / "jaxcls" / "__init__.py").touch()
    return lambda text: (tmp_path / "jaxcls" / "__main__.py").write_text(BEGIN + text)


def test_each_process_has_its_number_and_its_lines_say_which(program, capfd):
    program("sys.exit(count != '3')")
    assert launcher.launch(["train", "--task", "leaf"], 3) == 0
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == sorted(f"{who}hello train --task leaf --distributed {index}"
                                   for index, who in enumerate(["", "[1] ", "[2] "]))  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_every_process_and_their_status_is_returned(program, number, tmp_path):
    program(
        "signal.signal(int(sys.argv[2]), lambda *_: sys.exit(75))\nopen('ready' + index, 'w').close()\ntime.sleep(60)"
    )

    def send():
        while len(list(tmp_path.glob("ready*"))) < 2:
            threading.Event().wait(0.01)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    before = signal.getsignal(number)
    assert launcher.launch(["train", str(int(number))], 2) == 75
    sender.join()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9)], ids=["failed", "killed"]
)
def test_a_process_that_ends_takes_the_others_with_it(program, monkeypatch, end, status):
    monkeypatch.setattr(launcher, "_SECONDS_TO_END", 0.2)
    program(f"if index == '1':\n    {end}\ntime.sleep(60)")
    assert launcher.launch(["train"], 2) == status


@pytest.mark.parametrize(("command", "processes"), [(["predict"], 2), ([], 2), (["train"], 0)])
def test_only_a_command_that_trains_is_started(command, processes):
    with pytest.raises(InputError, match="jaxcls launch -- train"):
        launcher.launch(command, processes)
