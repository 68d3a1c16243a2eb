"""A model of the time and the memory of a training step on 1, 8 and 256 devices, and a check of its communication.

    python experiments/scale.py              # counts, computes and measures; writes experiments/scale.md
    python experiments/scale.py --no-measure # without the processes

Two networks of jaxcls: ResNet-50 on ImageNet (1.28 M images of 224 pixels) and a BERT encoder of 109 M parameters on
texts of 128 tokens. Operations, parameters and the activations that the gradient needs are counted in the traced
functions, in bfloat16 with float32 parameters; nothing of that size is compiled or run.

The time of a step on one device is that of a roofline: its operations at the peak rate, or five passes over the
activations (written, read, read again by the gradient, and their gradients written and read) at the rate of the memory,
whichever is longer, over the share of it that programs reach. What several devices send:

- data: the gradient is summed, 2 (N - 1) / N of its bytes by each device; fsdp: the parameters are gathered twice and
  the gradient is scattered, 3 (N - 1) / N. The compiler may do that while it computes, or not: both are shown.
- batch statistics: each normalization sums over all devices, twice forward and once backward, and waits for it: no
  bytes worth mentioning, but 3 messages a layer, each of log2(N) hops.

Measured: sums of arrays over 2 and 4 processes by JAX's own collectives (gloo on loopback). A line is fitted to those
of 2 processes, and predicts those of 4: twice the hops; and as all processes share the cores and the memory of one
machine, the bytes that all of them send, 2 (N - 1) times those of the array. Each time is the shortest of many, since
the machine may be busy.
"""

import argparse
import functools
import json
import math
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

TABLE = Path(__file__).with_suffix(".md")
IMAGES = 1_281_167
COUNTS = (1, 8, 256)
# Of the roofline, what programs reach.
REACHED = 0.4
BERT = {
    "model_type": "bert", "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
SIZES = (1 << 8, 1 << 12, 1 << 16, 1 << 20, 1 << 22, 1 << 24)


class Device(NamedTuple):
    """A kind of device, by its data sheet: operations and bytes per second, bytes, seconds.

    Attributes:
      near, group: the rate at which each device sends within a group of this size.
      far: the rate between groups.
      hop: the time of the shortest message.
    """

    name: str
    peak: float
    memory: float
    memory_rate: float
    near: float
    group: int
    far: float
    hop: float = 5e-6


DEVICES = (
    Device("H100 SXM, 8 to a node, 400 Gb/s each between nodes", 989e12, 80e9, 3.35e12, 450e9, 8, 50e9),
    Device("TPU v5e, a torus of 256", 197e12, 16e9, 0.82e12, 90e9, 256, 90e9),
)


class Network(NamedTuple):
    """The cost of one network; those of an example are for training, forward and backward.

    Attributes:
      slots: moments of the optimizer per parameter.
      normalizations: layers with batch statistics.
      input_bytes: of an example as it is sent to the device.
    """

    name: str
    parameters: int
    operations: float
    activations: float
    slots: int
    normalizations: int
    input_bytes: int
    batch: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--child", nargs=3, metavar=("PROCESS", "COUNT", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*map(int, options.child))), flush=True)
        return
    lines = model_lines(networks())
    if options.measure:
        lines += measured_lines({count: measure(count) for count in (2, 4)})
    print("\n".join(lines))
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def networks() -> list[Network]:
    """Counts the cost of both networks."""
    import jax
    import jax.numpy as jnp

    resnet = counted({"architecture": "resnet50"}, jax.ShapeDtypeStruct((8, 224, 224, 3), jnp.float32), 1000)
    encoder = counted(BERT, jax.ShapeDtypeStruct((8, 128), jnp.int32), 2)
    return [
        Network("ResNet-50", **resnet, slots=1, normalizations=53, input_bytes=224 * 224 * 3, batch=256),
        Network("encoder of 109 M", **encoder, slots=2, normalizations=0, input_bytes=128 * 4, batch=64),
    ]


def counted(config: dict[str, Any], inputs: Any, classes: int) -> dict[str, Any]:
    """Returns the parameters of a network, and the operations and the saved activations of an example."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from jaxcls.kernels import native
    from jaxcls.models import functional
    from jaxcls.models.pretrained import architecture

    backbone = architecture.find(config, "experiments/scale.py")

    class Classifier(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            built: Any = backbone.build(dtype=jnp.bfloat16, rngs=rngs, dropout=0.0)
            self.backbone, width = built, built.features
            self.last = nnx.Linear(width, classes, dtype=jnp.bfloat16, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            features = self.backbone(x)
            return self.last(features if features.ndim == 2 else features[:, 0])

    model = functional(lambda rngs: Classifier(rngs))
    params, state = jax.eval_shape(model.init, jax.random.key(0))

    def loss(params: Any, state: Any, inputs: Any, key: Any) -> jax.Array:
        return model.apply(params, state, inputs, key=key)[0].astype(jnp.float32).sum()

    def saved(params: Any, state: Any, inputs: Any, key: Any) -> Any:
        return jax.vjp(lambda params: loss(params, state, inputs, key), params)[1]

    arguments = (params, state, inputs, jax.eval_shape(lambda: jax.random.key(0)))
    # Without kernels of a platform, whose operations XLA does not count.
    with native.portable():
        lowered = jax.jit(jax.grad(loss)).trace(*arguments).lower(lowering_platforms=("tpu",))
        residuals = jax.tree.leaves(jax.eval_shape(saved, *arguments))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    held = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in residuals) - 4 * parameters
    count = inputs.shape[0]
    return {
        "parameters": parameters,
        "operations": lowered.cost_analysis()["flops"] / count,
        "activations": held / count,
    }


def compute_seconds(device: Device, network: Network, batch: float) -> float:
    """The time of a step of this many examples on one device."""
    example = max(network.operations / device.peak, 5 * network.activations / device.memory_rate)
    return batch * example / REACHED


def send_seconds(device: Device, network: Network, count: int, passes: int) -> float:
    """The time in which a gradient or parameters in float32 cross between devices this many times, at (N - 1) / N."""
    size, near = 4 * network.parameters, min(count, device.group)
    far = count // near
    # Within each group first, so that only a share of each device leaves it.
    return passes * size * ((near - 1) / near / device.near + (far - 1) / far / near / device.far)


def wait_seconds(device: Device, network: Network, count: int) -> float:
    """The time of the sums of batch statistics, for which all devices wait."""
    return 3 * network.normalizations * device.hop * math.log2(count)


def efficiency(device: Device, network: Network, count: int, batch: float, *, overlaps: bool, passes: int = 2) -> float:
    """The share of the time of a step in which devices compute."""
    compute = compute_seconds(device, network, batch)
    send, wait = send_seconds(device, network, count, passes), wait_seconds(device, network, count)
    return compute / (max(compute, send) + wait if overlaps else compute + send + wait)


def state_bytes(network: Network, divided_by: int) -> float:
    """Parameters, their gradient and the moments of the optimizer, float32."""
    return 4 * network.parameters * (2 + network.slots) / divided_by


def most_devices(device: Device, network: Network, batch: int, *, overlaps: bool) -> int:
    """The most devices, a power of two, that share a batch at an efficiency of 90% or more."""
    counts = [1 << power for power in range(1, 13) if 1 << power <= batch]
    fitting = [count for count in counts if efficiency(device, network, count, batch / count, overlaps=overlaps) >= 0.9]
    return max(fitting, default=1)


def model_lines(every: list[Network]) -> list[str]:
    """Returns what is computed, as Markdown."""
    lines = [
        "# Scale, on paper",
        "",
        "Written by `python experiments/scale.py`, whose help says what is assumed. Only sums are measured.",
        f"Programs are assumed to reach {REACHED:.0%} of the roofline.",
    ]
    cost = [
        (
            network.name,
            f"{network.parameters / 1e6:.1f} M",
            f"{network.operations / 1e9:.1f} G",
            f"{network.activations / 1e6:.1f} MB",
            f"{network.input_bytes / 1e3:.1f} kB",
        )
        for network in every
    ]
    lines += table(("network", "parameters", "operations", "saved activations", "input"), cost, "An example costs")
    for device in DEVICES:
        header = (
            "network", "devices", "batch of each", "computing, ms", "summing gradients, ms", "batch statistics, ms",
            "efficiency", "with overlap", "fsdp", "fsdp with overlap", "examples a second", "input of each, MB/s",
        )  # fmt: skip
        times = [times_of(device, network, count) for network in every for count in COUNTS]
        lines += table(header, times, f"A step on {device.name}")
        batches = (256, 1024, 4096, 32768)
        most = [
            (
                network.name,
                *(
                    " to ".join(f"{most_devices(device, network, batch, overlaps=one)}" for one in (False, True))
                    for batch in batches
                ),
            )
            for network in every
        ]
        title = f"Devices up to which the efficiency is 90%, without and with overlap, on {device.name}"
        lines += table(("network", *(f"batch {batch:,}" for batch in batches)), most, title)
    sizes = [
        (
            network.name,
            f"{count}",
            *(f"{state_bytes(network, parts) / 1e9:.3f}" for parts in (1, count)),
            f"{network.batch * network.activations / 1e9:.1f}",
        )
        for network in every
        for count in COUNTS
    ]
    names = ("network", "devices", "state, GB", "state along fsdp, GB", "activations, GB")
    return lines + table(names, sizes, "Memory of each device: parameters, gradient and moments in float32")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> list[str]:
    """Returns a table with its title, as lines of Markdown."""
    every = [header, ("---",) * len(header), *rows]
    return ["", f"## {title}", "", *(f"| {' | '.join(cells)} |" for cells in every)]


def times_of(device: Device, network: Network, count: int) -> tuple[str, ...]:
    """Returns a row of the table of steps."""
    rate = functools.partial(efficiency, device, network, count, network.batch)
    compute = compute_seconds(device, network, network.batch)
    seconds = (compute, send_seconds(device, network, count, 2), wait_seconds(device, network, count))
    step = compute / rate(overlaps=False)
    return (
        network.name,
        f"{count}",
        f"{network.batch}",
        *(f"{1e3 * each:.2f}" for each in seconds),
        *(f"{rate(overlaps=overlaps, passes=passes):.1%}" for passes in (2, 3) for overlaps in (False, True)),
        f"{network.batch * count / step:,.0f}",
        f"{network.input_bytes * network.batch / step / 1e6:,.1f}",
    )


def child(process: int, count: int, port: int) -> list[float]:
    """Sums arrays over processes; returns the shortest time for each of SIZES."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_platforms", "cpu")
    jax.distributed.initialize(f"localhost:{port}", count, process)
    mesh = jax.make_mesh((count,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split, whole = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (["data"], []))
    add = jax.jit(lambda x: x.sum(axis=0), out_shardings=whole)
    times = []
    for size in SIZES:
        local = jnp.ones((1, size // 4), jnp.float32)
        array = jax.make_array_from_process_local_data(split, local, (count, size // 4))
        add(array).block_until_ready()
        shortest = math.inf
        for _ in range(200 if size < 1 << 20 else 30):
            began = time.monotonic()
            add(array).block_until_ready()
            shortest = min(shortest, time.monotonic() - began)
        times.append(shortest)
    jax.distributed.shutdown()
    return times


def measure(count: int) -> list[float]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--child"]
    started = [
        subprocess.Popen([*command, str(index), str(count), str(port)], stdout=subprocess.PIPE, text=True)
        for index in range(count)
    ]
    results = [json.loads(process.communicate(timeout=900)[0].splitlines()[-1]) for process in started]
    # A sum is complete when the last process has it.
    return [max(times) for times in zip(*results, strict=True)]


def measured_lines(times: dict[int, list[float]]) -> list[str]:
    """Returns what was measured next to the line through the shortest and the longest sum of two processes."""
    two, four = times[2], times[4]
    hop = min(two)
    rate = 2 * SIZES[-1] / (two[-1] - hop)

    def model(size: int, count: int) -> float:
        return hop * math.log2(count) + 2 * (count - 1) * size / rate

    rows = [
        (f"{size:,}", *(f"{1e3 * each:.3f}" for each in (second, model(size, 2), fourth, model(size, 4))),
         f"{fourth / model(size, 4):.2f}")
        for size, second, fourth in zip(SIZES, two, four, strict=True)
    ]  # fmt: skip
    header = ("bytes", "2 processes, ms", "model, ms", "4 processes, ms", "model, ms", "measured / model")
    machine = f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), jax {version('jax')}, gloo on loopback"
    return [*table(header, rows, "Measured: sums over processes"), "", f"{machine}; the shortest of many."]


if __name__ == "__main__":
    main()
