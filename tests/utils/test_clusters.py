"""Which cluster started a process, and meeting the others; real processes: tests/faults/test_processes.py."""

import socket
import threading

import pytest

from jaxcls._utils import clusters
from jaxcls._utils.clusters import Cluster
from jaxcls._utils.errors import InputError, RunError

SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[003-004],other",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}


def detect(monkeypatch, environment, lines=None):
    for name in {*SLURM, *OPEN_MPI}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return clusters.detect(environment, 1.0, (lines if lines is not None else []).append)


def without(environment, *names):
    return {name: value for name, value in environment.items() if name not in names}


def test_tasks_of_a_cluster_are_detected(monkeypatch):
    # Ports as JAX's documentation derives them from the number of the job.
    assert detect(monkeypatch, SLURM) == Cluster("SLURM", f"node003:{61440 + 1}", 2, 1, [0])
    assert detect(monkeypatch, OPEN_MPI) == Cluster("Open MPI", f"10.96.0.1:{61440 + 1}", 4, 3, [1])


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "1"},
        SLURM | {"SLURM_NTASKS": "1"},  # an editor that was started in a job
        OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},  # a notebook
    ],
)
def test_variables_that_a_process_inherited_start_no_cluster(monkeypatch, environment):
    lines = []
    assert detect(monkeypatch, environment, lines) is None
    assert not lines


def test_the_shell_of_a_job_trains_alone_and_says_so(monkeypatch):
    lines = []
    assert detect(monkeypatch, without(SLURM, "SLURM_STEP_ID", "SLURM_STEP_NODELIST"), lines) is None
    assert lines == ["a SLURM job of 2 tasks, but srun did not start this process: it trains alone"]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (without(SLURM, "SLURM_PROCID"), "2 tasks, with SLURM_PROCID not set"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, "SLURM_STEP_NUM_TASKS 1"),
        (without(OPEN_MPI, "OMPI_MCA_orte_hnp_uri"), "Open MPI started 4 processes"),
    ],
)
def test_contradictory_environments_are_refused(monkeypatch, environment, message):
    with pytest.raises(InputError, match=message):
        detect(monkeypatch, environment)


@pytest.mark.parametrize(
    "text", ["", "on", "host:1", "host:0,2,0", "host:99999,2,0", ":1,2,0", "host:1,2,2", "host:1,x,0"]
)
def test_other_values_of_distributed_are_refused(text):
    with pytest.raises(InputError, match="HOST:PORT,N,I"):
        clusters.parse(text)


def test_missing_processes_are_named():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    failures = {}

    def meet(process):
        try:
            clusters._meet(Cluster("test", address, 4, process), 0.5)
        except RunError as error:
            failures[process] = str(error)

    threads = [threading.Thread(target=meet, args=[process]) for process in (0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "2 of 4 processes did not come within 0.5 s (--join-seconds): process 1, 3." in failures[0]
    assert "process 0 of 4 did not answer" in failures[2]
