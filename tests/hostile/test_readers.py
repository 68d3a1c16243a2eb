"""Whatever is damaged in a file, its reader soon returns a value or raises an error of jaxcls."""

import contextlib
import logging
import random

import pytest
import tally
from damage import bounded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers import ENDS, READERS

# Seconds; no single case takes a tenth of it, even on a busy machine.
PATIENCE = 30
# Readers whose cases take a hundredth of a second.
SLOW = {"checkpoint files", "run records and report", "a run to predict with"}


# When a load fails, Orbax abandons tasks, which Python reports later.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    made = READERS[request.param](tmp_path)
    made.valid()
    made.kind = request.param
    # Orbax logs thousands of lines about damaged files, with unpaired surrogates among them.
    logging.disable(logging.CRITICAL)
    yield made
    logging.disable(logging.NOTSET)


def test_a_damaged_file_ends_in_a_value_or_an_error_of_jaxcls(reader):
    most = 8 if reader.kind in SLOW else 40

    @settings(max_examples=most, suppress_health_check=[*HealthCheck], database=None)
    @given(st.randoms(use_true_random=False))
    def cases(rng):
        with contextlib.suppress(*ENDS):
            reader.read(rng)

    with bounded(PATIENCE):
        cases()


@pytest.mark.faults_long
@pytest.mark.parametrize("quarter", range(4))
def test_ten_thousand_damaged_files(reader, quarter):
    passed, uncaught = 0, {}
    cases = range(2_500 * quarter, 2_500 * (quarter + 1))
    tally.record(f"bad inputs: {reader.kind}", tried=len(cases))
    for case in cases:
        with bounded(PATIENCE):
            try:
                reader.read(random.Random(f"{reader.kind} {case}"))
            except ENDS:
                passed += 1
            except Exception as error:  # noqa: BLE001  any other error is a failure
                uncaught[case] = repr(error)[:200]
            else:
                passed += 1
    tally.record(f"bad inputs: {reader.kind}", passed=passed)
    assert not uncaught
