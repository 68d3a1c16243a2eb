"""The progress of a run: plain lines everywhere, and a bar in a terminal."""

import contextlib
import io
import os
import re
import termios
import time

import pytest

from jaxcls._utils import clock
from jaxcls.reports.callbacks import ProgressBar

ENTRY = {
    "epoch": 3,
    "step": 300,
    "loss": 0.25,
    "val_accuracy": 0.9,
    "val_loss": 0.5,
    "skipped_steps": 0,
    "seconds": 2.0,
    "examples_per_second": 12345.6,
}


class Terminal:
    """A pseudo-terminal of 100 columns: what is written to `out` is what `shown` returns."""

    def __init__(self):
        self._screen, end = os.openpty()
        termios.tcsetwinsize(end, (24, 100))
        self.out = os.fdopen(end, "w", encoding="utf-8")
        os.set_blocking(self._screen, False)

    def shown(self):
        self.out.flush()
        pieces = []
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._screen, 65536):
                pieces.append(piece)
        return b"".join(pieces).decode()

    def close(self):
        self.out.close()
        os.close(self._screen)


@pytest.fixture
def terminal():
    with contextlib.closing(Terminal()) as terminal:
        yield terminal


def rates(shown):
    """Every rate that a bar has shown, in examples a second; tqdm shortens thousands to 'k'."""
    unit = {"": 1.0, "k": 1e3, "M": 1e6}
    return [float(number) * unit[letter] for number, letter in re.findall(r"([\d.]+)([kM]?) examples/s", shown)]


def test_without_a_terminal_only_plain_lines_are_printed(capsys):
    out = io.StringIO()
    with ProgressBar(300, epochs=12, batch_size=10, out=out) as bar:
        bar.on_chunk_end(300, 0.25)
        bar.on_epoch_end([ENTRY])
    assert out.getvalue() == ""
    assert capsys.readouterr().out == (
        "epoch  3/12  loss 0.2500  val_accuracy 0.9000  val_loss 0.5000  2.0 s, 12,346 examples/s\n"
    )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"skipped_steps": 7}, "epoch 3/9  loss 0.2500  val_accuracy 0.9000  val_loss 0.5000  7 steps skipped  2.0 s"),
        ({"loss": None}, "epoch 3/9  val_accuracy 0.9000  val_loss 0.5000  2.0 s"),
    ],
    ids=["skipped steps are counted", "an epoch without a loss shows none"],
)
def test_epoch_line_shows_skipped_steps_and_omits_a_missing_loss(capsys, change, line):
    with ProgressBar(300, epochs=9, batch_size=10, out=io.StringIO()) as bar:
        bar.on_epoch_end([{}, {}, ENTRY | change])
    assert capsys.readouterr().out.startswith(line)


def test_terminal_shows_progress_loss_and_rate(terminal):
    with ProgressBar(100, epochs=1, batch_size=10, out=terminal.out) as bar:
        # The first dispatch: it compiles, so it says nothing of the rate.
        time.sleep(0.2)
        began = time.perf_counter()
        bar.on_chunk_end(20, 1.5)
        first = terminal.shown()
        assert " 20%|" in first
        assert "loss 1.5000" in first
        assert "? examples/s" in first

        time.sleep(0.2)
        bar.on_chunk_end(60, 0.75)
        seconds = time.perf_counter() - began
        second = terminal.shown()
    assert " 60%|" in second
    assert "loss 0.7500" in second
    # 400 examples in 0.2 seconds or, on a busy machine, more; tqdm rounds to three digits.
    assert 0.99 * 400 / seconds < rates(second)[-1] <= 400 / 0.2


def test_while_the_steps_are_compiled_a_terminal_shows_a_clock(terminal, monkeypatch):
    monkeypatch.setattr(clock, "_SILENT_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr", terminal.out)
    with ProgressBar(100, epochs=1, batch_size=10) as bar:
        bar.on_compile_begin(23.0)
        time.sleep(1.5)
        shown = terminal.shown()
        bar.on_chunk_end(20, 1.5)
    assert "compiling (first time, about 20 s): 0 s" in shown
    assert "about 20 s): 1 s" in shown


def test_elsewhere_it_is_one_line_if_it_takes_long(monkeypatch, capsys):
    lines = []
    for silent in (0.0, 60.0):
        monkeypatch.setattr(clock, "_SILENT_SECONDS", silent)
        with ProgressBar(100, epochs=1, batch_size=10, say=lines.append, out=io.StringIO()) as bar:
            bar.on_compile_begin(0.4)
            time.sleep(0.3)
            bar.on_chunk_end(20, 1.5)
    assert lines == ["compiling (first time, about 1 s)"]
    assert capsys.readouterr() == ("", "")


def test_steps_of_an_earlier_process_count_for_the_bar_but_not_the_rate(terminal):
    with ProgressBar(1000, epochs=1, batch_size=10, out=terminal.out) as bar:
        time.sleep(0.2)
        bar.on_chunk_end(904, 1.0)
        time.sleep(0.2)
        bar.on_chunk_end(908, 1.0)
    shown = terminal.shown()
    assert " 90%|" in shown
    # 40 examples in 0.2 seconds, also in the last line, which tqdm writes when the bar is closed.
    assert len(rates(shown)) >= 2
    assert max(rates(shown)) <= 40 / 0.2


def test_epoch_line_is_printed_to_standard_output_not_into_the_bar(terminal, capsys):
    with ProgressBar(100, epochs=1, batch_size=10, out=terminal.out) as bar:
        bar.on_chunk_end(50, 1.0)
        bar.on_epoch_end([ENTRY])
    assert "val_accuracy" not in terminal.shown()
    assert capsys.readouterr().out.count("val_accuracy 0.9000") == 1
