"""A program in two processes: python one_of_two.py INDEX PORT FOLDER. Its first process prints what it computed.

At the end, the second process kills itself.
"""

import json
import os
import signal
import sys
from pathlib import Path

from jaxcls._utils import clusters, environment

environment.configure()


def model_and_data():
    import numpy as np
    from flax import nnx

    import jaxcls
    from jaxcls.models.layers import BatchNorm

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(4, 6, use_bias=False, rngs=rngs)
            self.norm = BatchNorm(6, rngs=rngs)
            self.last = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, inputs):
            features = self.norm(self.first(inputs)[:, None, None, :])
            return self.last(nnx.relu(features[:, 0, 0]))

    drawn = np.random.default_rng(0)
    # Neither the batches of training nor those of evaluation divide it.
    inputs, labels = drawn.normal(size=(45, 4)).astype(np.float32), drawn.integers(3, size=45)
    compiled = jaxcls.compile(Network, optimizer="adam", eval_batch_size=8)
    return compiled, (inputs, labels), (inputs[:13], labels[:13])


def trained(run_dir):
    """Returns what a run gives, of however many processes."""
    import numpy as np

    from jaxcls.training.loop import chunks
    from jaxcls.training.run import sha256

    compiled, data, validation = model_and_data()
    options = {"epochs": 3, "validation_data": validation, "batch_size": 8, "train_metrics": True}
    state, history = compiled.fit(compiled.init(0), data, run_dir=run_dir, verbose=False, **options)
    fed = {}
    for data_on in ("host", "device"):
        feed = chunks(compiled, compiled.examples(data), 8, data_on=data_on, say=len).epoch_chunks(state.key, 1, 0)
        fed[data_on] = [sha256(tuple(chunk)) for chunk in feed]
    assert fed["host"] == fed["device"]
    return {
        "params": sha256(state.params),
        "batches": fed["host"],
        "history": [{name: entry[name] for name in entry if "second" not in name} for entry in history],
        "evaluated": compiled.evaluate(state, validation),
        "predicted": np.asarray(compiled.predict(state, data[0]), float).tolist(),
    }


def main(index: int, port: int, folder: Path) -> None:
    clusters.join(f"127.0.0.1:{port},2,{index}", seconds=60)
    from jaxcls._utils import processes
    from jaxcls._utils.errors import InputError
    from jaxcls._utils.interruption import Interrupted
    from jaxcls.training.loop import FitConfig, train

    assert processes.agreed(index == 1, False) == (True, False)
    try:
        processes.compare({"the data": {"a.csv": "1", "b.csv": index}})
    except InputError as error:
        refused = str(error)
    values = trained(folder / "run")
    compiled, data, _ = model_and_data()
    try:
        # Asked for in one process, at a moment of its own.
        polls = iter(range(100))
        stop = {"stop": lambda: index == 1 and next(polls) > 1, "say": len}
        train(compiled, compiled.init(0), compiled.examples(data), None, FitConfig(5, 8), **stop)
    except Interrupted as stopped:
        values["stopped"] = stopped.step
    if index == 0:
        print(json.dumps(values | {"refused": refused}), flush=True)
    else:
        assert values["stopped"] == 18
    processes.agreed(False)
    if index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        processes.agreed(False)
    except (RuntimeError, ValueError):  # of the collective, before the connection tells of it
        clusters.failed()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
