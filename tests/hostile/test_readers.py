"""Whatever is damaged in a file, its reader ends in a value or in an error of ours, soon."""

import contextlib
import logging
import random

import pytest
import tally
from damage import bounded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import ENDS, READERS

# Of seconds: no single case takes a tenth of it, on a busy machine either.
PATIENCE = 30
# Those whose cases take a hundredth of a second.
SLOW = {"checkpoint files", "run records and page", "a run to predict with"}


# What Orbax leaves behind when it meets damaged files: tasks that nobody waits for any more.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    made = READERS[request.param](tmp_path)
    made.valid()
    made.kind = request.param
    # Orbax logs thousands of lines of what is damaged, half characters among them.
    logging.disable(logging.CRITICAL)
    yield made
    logging.disable(logging.NOTSET)


def test_a_damaged_file_ends_in_a_value_or_in_our_error(reader):
    most = 8 if reader.kind in SLOW else 40

    @settings(max_examples=most, suppress_health_check=[*HealthCheck], database=None)
    @given(st.randoms(use_true_random=False))
    def cases(rng):
        with contextlib.suppress(*ENDS):
            reader.read(rng)

    with bounded(PATIENCE):
        cases()


@pytest.mark.faults_long
@pytest.mark.parametrize("part", range(4))
def test_ten_thousand_damaged_files(reader, part):
    held, uncaught = 0, {}
    cases = range(2_500 * part, 2_500 * (part + 1))
    for case in cases:
        with bounded(PATIENCE):
            try:
                reader.read(random.Random(f"{reader.kind} {case}"))
            except ENDS:
                held += 1
            except Exception as error:  # noqa: BLE001  what is looked for
                uncaught[case] = repr(error)[:200]
            else:
                held += 1
    tally.record(f"bad inputs: {reader.kind}", len(cases), held)
    assert not uncaught
