"""Joining a cluster: which one started this process, meeting the others, and ending with them.

What JAX's own runtime does not do: it says which processes are missing, it tells the others why one ended, and the
end of one ends all of them at once. For that, every process stays connected to the first one.
"""

import contextlib
import inspect
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxcls._utils import escaping
from jaxcls._utils.errors import InputError, RunError, listed

# After this many seconds without a sign of life, such as from a machine without power, JAX ends the other processes.
HEARTBEAT_SECONDS = 20
_RETRY_SECONDS = 0.2
# For the last words of a process to arrive before its connections are closed.
_LAST_SECONDS = 0.5
_LONGEST_LINE = 1 << 16

_SLURM_TASK = ("SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_ALONE = "give --distributed off to train in this process alone, or --distributed HOST:PORT,N,I with the address of "
_ALONE += "process 0, the number of processes and the number of this one"


class Cluster(NamedTuple):
    """Processes that train together, and the number of this one.

    Attributes:
      name: what started them.
      address: HOST:PORT of the first one, where JAX's coordinator listens.
      devices: the numbers of the devices of this process on its machine; None for all.
    """

    name: str
    address: str
    processes: int
    process: int
    devices: Sequence[int] | None = None


def parse(text: str) -> Cluster:
    """Returns the cluster that HOST:PORT,N,I names.

    >>> parse("10.0.0.1:1234,8,0")
    Cluster(name='--distributed', address='10.0.0.1:1234', processes=8, process=0, devices=None)
    """
    address, _, numbers = text.partition(",")
    host, _, port = address.rpartition(":")
    count, _, index = numbers.partition(",")
    valid = host and all(number.isdecimal() for number in (port, count, index))
    if not valid or not 0 < int(port) < 1 << 16 or not int(index) < int(count):
        raise InputError(
            f"--distributed {text}: give auto, off, or HOST:PORT,N,I: where process 0 listens, the number of "
            "processes, and the number of this one, from 0 to N-1."
        )
    return Cluster("--distributed", address, int(count), int(index))


def detect(environment: Mapping[str, str], seconds: float, say: Callable[[str], None]) -> Cluster | None:
    """Returns the cluster whose task this process is, by JAX's own detection; None if it runs alone.

    Variables of a cluster that this process inherited, such as from the shell of a job, do not make it a task.

    Raises:
      InputError: the variables contradict each other, so that it cannot be known.
    """
    _check_slurm(environment, say)
    _check_mpi(environment)
    if not _candidates(environment):
        return None
    from jax._src.clusters import ClusterEnv

    names = _candidates(environment)
    present = next((one for one in ClusterEnv._cluster_types if one.name in names and one.is_env_present()), None)
    if present is None or present.get_process_count() == 1:
        return None
    address, count, index, devices = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, present.name, int(seconds)
    )
    assert address is not None
    assert count is not None
    assert index is not None
    return Cluster(_NAMES[present.name], address, count, index, devices)


# JAX's names of clusters and ours.
_NAMES = {
    "slurm": "SLURM",
    "ompi": "Open MPI",
    "gketpu": "GKE (TPU)",
    "gcetpu": "a TPU pod",
    "k8s": "Kubernetes",
}


def _candidates(environment: Mapping[str, str]) -> list[str]:
    """The clusters whose detection can succeed here, and has no side effects: no request to a server, no warning."""
    names = []
    if _tasks(environment, "SLURM_NTASKS") > 1 and all(name in environment for name in _SLURM_TASK):
        names.append("slurm")
    if _tasks(environment, "OMPI_COMM_WORLD_SIZE") > 1:
        names.append("ompi")
    if "," in environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES", "")):
        names.append("gketpu")
    # Colab and Kaggle have one host, and no metadata server that would answer.
    hosted = any(name.startswith(("COLAB_", "KAGGLE_")) for name in environment)
    attached = any(map(os.path.exists, ("/dev/accel0", "/dev/vfio/0")))
    if "TPU_WORKER_HOSTNAMES" not in environment and not hosted and attached:
        names.append("gcetpu")
    # The number of a pod in a job of several; a notebook's pod has none.
    if "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment:
        names.append("k8s")
    return names


def _tasks(environment: Mapping[str, str], name: str) -> int:
    number = environment.get(name, "1")
    return int(number) if number.isdecimal() else 1


def _check_slurm(environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    tasks = _tasks(environment, "SLURM_NTASKS")
    in_step = "SLURM_STEP_ID" in environment or "SLURM_STEP_NODELIST" in environment
    if tasks == 1 or "SLURM_JOB_ID" not in environment:
        return
    if not in_step:
        say(f"a SLURM job of {tasks} tasks, but srun did not start this process: it trains alone")
        return
    missing = [name for name in _SLURM_TASK if name not in environment]
    of_step = environment.get("SLURM_STEP_NUM_TASKS", str(tasks))
    if missing or of_step != str(tasks):
        what = f"{listed(missing)} not set" if missing else f"SLURM_STEP_NUM_TASKS {of_step}"
        raise InputError(
            f"the environment is that of a SLURM step of {tasks} tasks, with {what}: it cannot be known whether this "
            f"process is one of them. Start all of them with srun; {_ALONE}."
        )


def _check_mpi(environment: Mapping[str, str]) -> None:
    tasks = _tasks(environment, "OMPI_COMM_WORLD_SIZE")
    if tasks > 1 and not {"OMPI_MCA_orte_hnp_uri", "JAX_COORDINATOR_ADDRESS"} & environment.keys():
        raise InputError(
            f"Open MPI started {tasks} processes, but says no address at which they can meet (since version 5 it says "
            f"none): {_ALONE}, such as --distributed HOST:PORT,$OMPI_COMM_WORLD_SIZE,$OMPI_COMM_WORLD_RANK in a shell "
            "that mpirun starts."
        )


def join(where: str, *, seconds: float = 300.0, say: Callable[[str], None] = print) -> None:
    """Joins the cluster that ``where`` names: 'auto' to detect one, 'off', or HOST:PORT,N,I.

    Before the first device is used. A process that runs alone, or that joined already, is left alone.

    Raises:
      InputError: ``where`` is none of these, or the environment is contradictory.
      RunError: other processes did not come in time; the message names them.
    """
    global _watch
    if where == "off":
        return
    import jax

    if jax.distributed.is_initialized():
        return
    cluster = detect(os.environ, seconds, say) if where == "auto" else parse(where)
    if cluster is None or cluster.processes == 1:
        return
    address, count, index = cluster.address, cluster.processes, cluster.process
    if index == 0:
        say(f"{cluster.name}: {count} processes, this is process 0; waiting for the others at {address}")
    _watch = _Watch(index, _meet(cluster, seconds))
    has_heartbeat = "heartbeat_timeout_seconds" in inspect.signature(jax.distributed.initialize).parameters
    options: Any = {"heartbeat_timeout_seconds": HEARTBEAT_SECONDS} if has_heartbeat else {}
    # A signal is agreed on between dispatches; JAX's own handler would replace ours, and before JAX 0.8 it does.
    handler = signal.getsignal(signal.SIGTERM)
    if hasattr(jax.config, "jax_enable_preemption_service"):
        jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        address,
        count,
        index,
        cluster.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=int(seconds),
        **options,
    )
    from jaxcls._utils import processes

    # The library of collectives prints a line to standard output when it connects.
    with _without_stdout():
        processes.agreed(True)
    # None is a handler that is not Python's.
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _meet(cluster: Cluster, seconds: float) -> dict[int, socket.socket]:
    """Connects the first process with all others; returns the connections by the number of the other process."""
    host, _, port = cluster.address.rpartition(":")
    deadline = time.monotonic() + seconds
    if cluster.process == 0:
        return _receive(int(port), cluster.processes, deadline, seconds)
    while True:
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=max(1.0, seconds / 10))
            opened.enter_context(connection)
            connection.sendall(b"%d\n" % cluster.process)
            # The first process answers when all are there.
            connection.settimeout(max(1.0, deadline - time.monotonic() + 5))
            if connection.recv(1):
                connection.settimeout(None)
                opened.pop_all()
                return {0: connection}
        if time.monotonic() > deadline:
            raise RunError(
                f"process 0 of {cluster.processes} did not answer at {cluster.address} within {seconds:g} s "
                f"(--join-seconds), or waits for others; this is process {cluster.process}."
            )
        time.sleep(_RETRY_SECONDS)


def _receive(port: int, count: int, deadline: float, seconds: float) -> dict[int, socket.socket]:
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=count)
    except OSError as error:
        raise RunError(f"port {port} of this machine cannot be used ({error.strerror}); give another one.") from error
    connections: dict[int, socket.socket] = {}
    with listener, contextlib.ExitStack() as opened:
        while len(connections) < count - 1:
            listener.settimeout(max(0.1, deadline - time.monotonic()))
            try:
                connection = opened.enter_context(listener.accept()[0])
                connection.settimeout(5.0)
                number = connection.recv(20)
            except TimeoutError:
                number = b""
            if number.strip().isdigit() and 0 < int(number) < count:
                connections[int(number)] = connection
            if time.monotonic() > deadline and len(connections) < count - 1:
                missing = [number for number in range(1, count) if number not in connections]
                raise RunError(
                    f"{len(missing)} of {count} processes did not come within {seconds:g} s (--join-seconds): process "
                    f"{listed(missing)}. Look at their output, and whether their machines reach this one."
                )
        for connection in connections.values():
            connection.sendall(b"!")
            connection.settimeout(None)
        opened.pop_all()
    return connections


class _Watch:
    """Listens to the other processes, in a thread of its own: the main thread may be waiting for one of them."""

    def __init__(self, index: int, connections: Mapping[int, socket.socket]):
        self.index = index
        self._connections = dict(connections)
        self._done: set[int] = set()
        self._finished = threading.Event()
        self._lock = threading.Lock()
        self._leaving: int | None = None
        self._told_by_first = False
        threading.Thread(target=self._listen, name="processes", daemon=True).start()

    def _listen(self) -> None:
        selector = selectors.DefaultSelector()
        for number, connection in self._connections.items():
            selector.register(connection, selectors.EVENT_READ, (number, connection.makefile("rb")))
        while len(self._done) < len(self._connections):
            for key, _ in selector.select():
                number, file = key.data
                try:
                    line = file.readline(_LONGEST_LINE)
                except OSError:
                    line = b""
                record = json.loads(line) if line.endswith(b"\n") else None
                if record is None:
                    text = "was killed, or its machine is gone"
                    self.end(1, number, f"{text}. The same command in all processes continues from the last checkpoint")
                elif record["status"]:
                    self.end(record["status"], record["process"], record["message"])
                else:
                    self._done.add(number)
                    selector.unregister(key.fileobj)
        self._finished.set()

    def end(self, status: int, process: int, message: str) -> None:
        """Ends this process, because another one ended."""
        with self._lock:
            if status == self._leaving:  # all ended for the same reason
                self._told_by_first |= process == 0
                return
            line = escaping.line(message.removeprefix("error: "))
            text = f"error: process {process} ended, and so does process {self.index}: {line}"
            print(text, file=sys.stderr, flush=True)
            self._exit(status, process, message)

    def leave(self, status: int, message: str, say: Callable[[str], None]) -> None:
        if not status:
            self._tell(0, self.index, "")
            self._finished.wait()
            return
        with self._lock:
            self._leaving = status if message else None
        if self.index == 0 and message:
            say(message)
        # This process may fail because another one ended, which its connection will tell.
        time.sleep(_LAST_SECONDS)
        with self._lock:
            if self.index and message and not self._told_by_first:
                say(f"process {self.index}: {message}")
            self._exit(status, self.index, message or "an unexpected error")

    def _tell(self, status: int, process: int, message: str) -> None:
        record = {"status": status, "process": process, "message": message[: _LONGEST_LINE // 8]}
        for number, connection in self._connections.items():
            with contextlib.suppress(OSError):
                if number != process:
                    connection.sendall(json.dumps(record).encode() + b"\n")

    def _exit(self, status: int, process: int, message: str) -> None:
        if self.index == 0 or process == self.index:
            self._tell(status, process, message)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if self.index == 0:
            # JAX's coordinator, without which the others end before they have said why, runs in this process.
            time.sleep(_LAST_SECONDS)
        # An orderly exit would wait for the others.
        os._exit(status)


# Of a process that the command joined to a cluster.
_watch: _Watch | None = None


def leave(status: int, message: str = "", say: Callable[[str], None] = print) -> int:
    """Ends with the other processes: returns when all have succeeded, or ends all of them with this status.

    Args:
      message: why this process ends, which ``say`` prints; without one, the reason was printed.
    """
    if _watch is not None:
        _watch.leave(status, message, say)
    elif message:
        say(message)
    return status


def failed() -> None:
    """Ends all processes for the exception that is being handled; returns if this process trains alone."""
    if _watch is not None:
        # A computation fails where another process ended, which its connection will tell.
        time.sleep(2 * _LAST_SECONDS)
        traceback.print_exc()
        _watch.leave(1, "", print)


def joined() -> int:
    """Returns the number of this process in the cluster that it joined; 0 of one that did not."""
    return 0 if _watch is None else _watch.index


@contextlib.contextmanager
def _without_stdout() -> Iterator[None]:
    sys.stdout.flush()
    saved, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nothing)
