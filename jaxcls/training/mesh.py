"""The mesh of devices: how a batch and a state are divided over them.

Each device computes its share of the rows of a batch, whichever axis of the mesh it is on. What differs is the state:
along ``data`` each device has all of it, along ``fsdp`` ("fully sharded data parallel", as in ZeRO, Rajbhandari et al.
2020, arXiv 1910.02054) a share of every large leaf, of which the compiler gathers what it computes with. Only arguments
and results of the compiled steps have a sharding; those of activations are the compiler's choice.
"""

import contextlib
import contextvars
import functools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxcls._utils.errors import InputError, did_you_mean

PyTree = Any

AXES = ("data", "fsdp")
# A smaller leaf, such as a bias, is whole on every device: to gather it would take longer than it saves memory.
_MIN_ELEMENTS = 1024
# The axis that is divided of leaves with such a path, if it can be, in place of the largest one.
EXCEPTIONS: tuple[tuple[str, int], ...] = (
    # Rows of a table are taken by number: with a share of every row on each device, no row is sent to find it.
    (r"embedding'\]$", -1),
)


# Of a thread that trains a member of a population; others use all devices.
_DEVICES: contextvars.ContextVar[Sequence[jax.Device] | None] = contextvars.ContextVar("devices", default=None)


def devices() -> Sequence[jax.Device]:
    """Returns the devices that share a batch: all, or those of :func:`on_devices`."""
    return _DEVICES.get() or jax.devices()


@contextlib.contextmanager
def on_devices(chosen: Sequence[jax.Device] | None) -> Iterator[None]:
    """Trains and evaluates on these devices in this thread, so that others can use the rest; None is all."""
    token = _DEVICES.set(chosen)
    try:
        yield
    finally:
        _DEVICES.reset(token)


def parse(text: str) -> dict[str, int]:
    """Returns the sizes of the axes of a mesh.

    Raises:
      InputError: it is not ``data=N,fsdp=N``, or one of both.

    >>> parse("fsdp=2,data=4")
    {'data': 4, 'fsdp': 2}
    """
    sizes: dict[str, int] = {}
    for word in text.replace(" ", "").split(","):
        name, _, size = word.partition("=")
        if name not in AXES or name in sizes or not re.fullmatch("[1-9][0-9]{0,5}", size):
            hint = "" if name in AXES else did_you_mean(name, AXES)
            raise InputError(
                f"--mesh {text}: {word!r} is no axis of a mesh.{hint} Give the number of devices along data, which "
                "divides batches alone, and along fsdp, which divides parameters too, such as data=4,fsdp=2."
            )
        sizes[name] = int(size)
    return {name: sizes.get(name, 1) for name in AXES}


def make(text: str | None = None) -> Mesh:
    """Returns the mesh of :func:`devices`: that of ``data=4,fsdp=2``, or by default all of them along ``data``.

    Raises:
      InputError: these are more or fewer devices than there are.
    """
    return _made(text, tuple(devices()))


@functools.cache
def _made(text: str | None, chosen: tuple[jax.Device, ...]) -> Mesh:
    count = len(chosen)
    sizes = {"data": count} if text is None else parse(text)
    if (total := math.prod(sizes.values())) != count:
        fsdp = math.gcd(sizes["fsdp"], count)
        right = ",".join(f"{name}={size}" for name, size in (("data", count // fsdp), ("fsdp", fsdp)) if size > 1)
        advice = f"give --mesh {right or 'data=1'}"
        if jax.default_backend() == "cpu":
            advice += f", or set JAX_NUM_CPU_DEVICES={total} to simulate them"
        elif total < count:
            advice += ", or hide devices, such as by CUDA_VISIBLE_DEVICES"
        there = f"{'is' if count == 1 else 'are'} {count} ({jax.devices()[0].device_kind})"
        raise InputError(f"--mesh {text} is of {total} devices, and there {there}; {advice}.")
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes), devices=chosen)


def first_device() -> Mesh:
    """Returns the mesh of one device."""
    return _made(None, (jax.devices()[0],))


def usable(text: str | None) -> str | None:
    """Returns the mesh of an earlier run, or None for the default if it was one of other devices."""
    try:
        make(text)
    except InputError:
        return None
    return text


def shardings(mesh: Mesh | None = None) -> tuple[NamedSharding, NamedSharding]:
    """Returns the sharding of an array that is whole on every device, and of one split along its first axis."""
    mesh = make() if mesh is None else mesh
    # One axis by its name, several as a tuple: both mean the same, and jit compares them.
    rows = mesh.axis_names if len(mesh.axis_names) > 1 else mesh.axis_names[0]
    return NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(rows))


def placed(mesh: Mesh, shapes: PyTree) -> PyTree:
    """Returns the shapes of a state, or of some of it, with the sharding of each leaf.

    Parameters, their moments and their averages have equal shapes and paths that end equally, and so one sharding.
    """

    def with_sharding(path: Any, leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, _spec(mesh, path, leaf)))

    return jax.tree.map_with_path(with_sharding, shapes)


def _spec(mesh: Mesh, path: Any, leaf: Any) -> PartitionSpec:
    count = mesh.shape.get("fsdp", 1)
    divisible = [axis for axis, size in enumerate(leaf.shape) if size % count == 0]
    if count == 1 or math.prod(leaf.shape) < _MIN_ELEMENTS or not divisible:
        return PartitionSpec()
    name = jax.tree_util.keystr(path)
    preferred = {axis % leaf.ndim for pattern, axis in EXCEPTIONS if re.search(pattern, name)}
    axis = max(divisible, key=lambda axis: (axis in preferred, leaf.shape[axis]))
    return PartitionSpec(*[None] * axis, "fsdp")


def padding(count: int, mesh: Mesh | None = None, groups: int = 1) -> int:
    """Returns the masked rows that are added to this many, so that the devices share each of the groups equally.

    >>> (7 + padding(7)) % jax.device_count()
    0
    """
    return -count % ((make() if mesh is None else mesh).size * groups)
