"""What `jaxcls export --weights int8` costs: size, accuracy and rate next to the export in float32.

    python experiments/small_models.py --run-dir RUN [RUN ...]

Exports each finished run four times, as StableHLO and as ONNX, predicts the test part of its task with the loader of
the StableHLO exports, and times both. The accuracy of a run is that of its test examples; nothing is chosen by it. The
rate, per second of computing of all threads, is that of the best of five passes (fewer after 40 seconds) over at most
1,024 test examples in batches of 64, alternating between the two.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes

TABLE = Path(__file__).with_suffix(".md")
# The file of an export that holds the weights.
FILES = {"stablehlo": "parameters.npz", "onnx": "model.onnx"}
WEIGHTS = ("float32", "int8")
HEAD = """# Weights in 8 bits

Written by `python experiments/small_models.py`, whose help tells how it measures, on {machine}.
The file of the weights is `parameters.npz` of a StableHLO export, or `model.onnx`, which contains the program; the
folder has the loader, the programs and the tokenizer too. Rates are examples per CPU second in batches of 64.

Biases remain float32. The model of n-grams has a weight and a count for each of a million n-grams: counts are exact, in
two bytes instead of four. A fifth of the smallest `model.onnx` is its program.

{runs}

| run | format | file, MB | in 8 bits | share | folder, MB | in 8 bits | rate | in 8 bits |
|---|---|---|---|---|---|---|---|---|"""
ACCURACY = """
Accuracy of the StableHLO exports on the test examples, in percent, and how far the probabilities in 8 bits are from
those in float32. Decisions that differ may be right or wrong in either.

| run | test examples | accuracy | in 8 bits | difference | decisions that differ | mean difference | largest |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, nargs="+", required=True, help="finished runs of one output")
    parser.add_argument("--formats", nargs="+", choices=FILES, default=[*FILES])
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    runs, sizes, accuracies = [], [], []
    for path in options.run_dir:
        name, described, size, accuracy = measured(path, options.formats)
        runs.append(f"- {name}: {described}")
        sizes += size
        accuracies.append(accuracy)
        print(*size, accuracy, sep="\n", flush=True)
        head = HEAD.format(machine=processes.machine(), runs="\n".join(runs))
        options.out.write_text("\n".join([head, *sizes, ACCURACY, *accuracies]) + "\n", encoding="utf-8")


def measured(path: Path, formats: list[str]) -> tuple[str, str, list[str], str]:
    import numpy as np

    from jaxcls.export import folder, loader
    from jaxcls.tasks import predictor

    learned = predictor.load(path, portable=True)
    assert learned.task is not None
    config = json.loads((path / "data.json").read_text(encoding="utf-8"))
    exportable = learned.exportable()
    test = learned.task.load(learned.task_settings).test
    data = learned.task_settings.data
    name = f"{data.stem if data else learned.experiment.name}, {exportable.record['model']}"
    labels, encoded = np.asarray(test.labels), learned.experiment.transform(test.inputs)
    rows, scores = [], {}
    with tempfile.TemporaryDirectory() as temporary:
        for format in formats:
            file, whole, passes = [], [], []
            for weights in WEIGHTS:
                output = Path(temporary) / f"{format}-{weights}"
                whole.append(folder.export(output, exportable, format, weights=weights) / 1e6)
                file.append((output / FILES[format]).stat().st_size / 1e6)
                if format == "stablehlo":
                    scores[weights] = loader.load(output).score(encoded)
                passes.append(program(output, format, encoded, exportable))
            rates = best(passes)
            rows.append(
                f"| {name} | {format} | {file[0]:.2f} | {file[1]:.2f} | {file[1] / file[0]:.0%} | {whole[0]:.2f} | "
                f"{whole[1]:.2f} | {rates[0]:,.0f} | {rates[1]:,.0f} |"
            )
    decided = [decisions(scores[weights], learned.thresholds) for weights in WEIGHTS]
    exact, small = (100 * float((one == labels).mean()) for one in decided)
    distance = np.abs(scores["int8"] - scores["float32"])
    accuracy = (
        f"| {name} | {len(labels):,} | {exact:.2f} | {small:.2f} | {small - exact:+.2f} | "
        f"{int((decided[0] != decided[1]).sum())} | {distance.mean():.5f} | {distance.max():.4f} |"
    )
    parameters = json.loads((path / "summary.json").read_text(encoding="utf-8"))["parameters"]
    described = f"{parameters:,} parameters that learned; data: {config['source']}, {config['note'] or 'of the user'}"
    return name, described, rows, accuracy


def decisions(scores: Any, thresholds: Any) -> Any:
    return scores.argmax(axis=1) if scores.ndim == 2 else (scores >= thresholds).astype(int)


def program(output: Path, format: str, encoded: Any, exportable: Any) -> Callable[[], int]:
    """A function that computes batches of 64 of at most 1,024 examples, and returns how many."""
    import jax

    from jaxcls.export import loader, onnx

    some = jax.tree.map(lambda leaf: leaf[:1024], encoded)
    count = len(jax.tree.leaves(some)[0])
    if format == "stablehlo":
        model = loader.load(output)

        def compute() -> int:
            model.score(some, batch_size=64)
            return count

        return compute
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(output / "model.onnx", providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    arrays = onnx._named_inputs(some, exportable)

    def compute_onnx() -> int:
        for start in range(0, count, 64):
            session.run(None, {name: arrays[name][start : start + 64] for name in names})
        return count

    return compute_onnx


def best(passes: list[Callable[[], int]]) -> list[float]:
    """The rate of the fastest of five passes of each, after one that compiles."""
    rates, begin = [0.0] * len(passes), time.perf_counter()
    for number in range(6):
        if number > 1 and time.perf_counter() - begin > 40:
            break
        for index, one in enumerate(passes):
            start = time.process_time()
            count = one()
            rates[index] = max(rates[index], count / (time.process_time() - start))
    return rates


if __name__ == "__main__":
    main()
