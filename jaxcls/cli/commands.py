"""The commands of the program: the fields of a class are its options, the docstrings are the help, and `run` acts.

What imports JAX is imported by `run`, because --help needs none of it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import pkgutil
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jaxcls
from jaxcls._utils import clusters, environment, files
from jaxcls._utils.errors import InputError, flag, listed
from jaxcls._utils.interruption import Interrupted, StopRequests, stop_requests
from jaxcls._utils.text_table import text_table
from jaxcls.cli import console
from jaxcls.reports.callbacks import Callback
from jaxcls.training import settings
from jaxcls.training.settings import UNSET, DataSource, OutputSettings, Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Settings):
    """Train a classifier and test it.

    Options without a default below are set by the preset of the task; those that
    the preset does not set have the default of the loss, optimizer or schedule.

    Examples:
        jaxcls train --task fashion_mnist
        jaxcls train --task fashion_mnist --model resnet --optimizer sgd --momentum 0.9
        jaxcls train --task csv --data patients.csv --label-column outcome
    """

    def run(self) -> None:
        if self.list_tasks:
            _list_tasks()
            return
        from jaxcls.tasks.train import train_task

        say = console.sayer(quiet=self.quiet, json=self.json)
        if line := environment.unmeasured():
            say(line)
        with stop_requests() as stop:
            result = train_task(self, callbacks=[_Training(stop)], say=say, stop=stop)
        say(console.table(result.report, "test"))
        if curves := console.curves(result.history, encoding=sys.stdout.encoding):
            say(f"\n{curves}\n")
        say(f"saved in {result.directory}; report: {result.directory / 'report.html'}")
        if self.json and not clusters.joined():
            epochs = len(result.history)
            console.say_json({"run_dir": str(result.directory), "epochs": epochs} | result.report)


class _Training(Callback):
    """Tells the handlers of signals when there are steps to save."""

    def __init__(self, stop: StopRequests):
        self._stop = stop

    def on_chunk_end(self, step: int, loss: float) -> None:
        self._stop.training = True

    def on_train_end(self, history: Sequence[dict[str, Any]]) -> None:
        self._stop.training = False
        if self._stop():
            raise Interrupted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(DataSource, OutputSettings):
    """Score a finished run on one split of its data, or on other data.

    Examples:
        jaxcls evaluate --run-dir runs/fashion_mnist-1a2b3c4d
        jaxcls evaluate --run-dir runs/fashion_mnist-1a2b3c4d --split validation
        jaxcls evaluate --run-dir runs/csv-1a2b3c4d --test-data new.csv
    """

    run_dir: Path
    """folder of the run"""
    split: Literal["test", "validation", "train"] = "test"
    """the split to score; validation examples decided the best epoch and the thresholds"""
    source: Literal["auto", "files", "tfds", "sample"] = UNSET
    """where to read a public data set from, as in training; data that is not given is that of the run"""

    def run(self) -> None:
        import jax

        from jaxcls.reports import run_directory
        from jaxcls.tasks import build, predictor
        from jaxcls.training import problems
        from jaxcls.training.saving import plain_thresholds

        say = console.sayer(quiet=self.quiet, json=self.json)
        learned = predictor.load(self.run_dir)
        task, resolved = build.resolve(_with_data(learned.task_settings, self))
        dataset, splits = build.load(task, resolved, say=say)
        if (task.problem, dataset.class_names) != (learned.problem, learned.class_names):
            here, there = (", ".join(jax.tree.leaves(names)) for names in (dataset.class_names, learned.class_names))
            raise InputError(
                f"{dataset.provenance.location} is a {task.problem} problem of {here}, but the run in {self.run_dir} "
                f"learned a {learned.problem} one of {there}; give data of the same classes."
            )
        before, now = learned.data["sha256"], dataset.provenance.sha256
        differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        if differing:
            say(
                f"note: this is not the data of the run, from {learned.data['location']}: {', '.join(differing)} differ"
            )
        split = getattr(splits, self.split)
        for line in build.unfamiliar(learned.experiment.preprocessor, split.inputs):
            say(f"warning: {line}")
        problem = problems.get(task.problem, dataset.class_names)
        # In the batches of the run's test, to the same bits.
        scores = learned.experiment.scores(learned.weights, learned.experiment.transform(split.inputs))
        result = problem.report(scores, split, learned.thresholds) | {
            "split": self.split,
            "thresholds": plain_thresholds(learned.thresholds),
            "synthetic": dataset.provenance.synthetic,
            "data": dataclasses.asdict(dataset.provenance),
        }
        say(console.table(result, self.split))
        say(f"saved as {run_directory.write_evaluation(self.run_dir, self.split, result)}")
        if self.json:
            console.say_json({"run_dir": str(self.run_dir)} | result)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(OutputSettings):
    r"""Predict new examples with a finished run.

    Examples:
        jaxcls predict --run-dir runs/leaf-1a2b3c4d --input test.csv --output predicted.csv
        jaxcls predict --run-dir runs/leaf-1a2b3c4d --input test.csv --output submission.csv \
            --sample-submission sample_submission.csv
        jaxcls predict --run-dir runs/detection-1a2b3c4d --input images --output boxes.json --draw drawn
    """

    run_dir: Path
    """folder of the run"""
    input: Path
    """examples in the format of the test examples, without labels; for a task on images also an image file or a folder
    of images; of a run of jaxcls.compile, an .npy or .npz file"""
    output: Path
    """CSV file to write: for every example its id, predicted class or labels, and the probability of each class; for a
    detector, a JSON file in the format of COCO results"""
    sample_submission: Path | None = None
    """sample submission of a Kaggle competition: the output takes over its header, ids, columns and their order"""
    model: str | None = None
    """of a run of jaxcls.compile, whose model code is yours: what builds the model, such as my_package.models:build"""
    draw: Path | None = None
    """new folder for the images with the detected boxes drawn on them"""
    coverage: float | None = None
    """also write a set of classes for each example that holds the true one with this probability, such as 0.9; of runs
    with --calibrate"""
    sets: Literal["lac", "aps"] = "lac"
    """how the sets of --coverage are made: lac makes the smallest ones, which may be empty; aps makes larger ones where
    the model is unsure"""
    by_class: bool = False
    """make sets that hold with the probability of --coverage for the examples of each class, not only of all"""
    overwrite: bool = False
    """replace the output if it exists"""

    def run(self) -> None:
        for name in ("input", "sample_submission"):
            path = getattr(self, name)
            if path is not None and path.resolve() == self.output.resolve():
                raise InputError(f"--output {self.output} would replace the {flag(name)}; name another file.")
        console.check_output(self.output, overwrite=self.overwrite)
        from jaxcls.reports import shift
        from jaxcls.tasks import build, predictor
        from jaxcls.training import problems

        say = console.sayer(quiet=self.quiet, json=self.json)
        # Portable kernels, so that an export predicts the same.
        learned = predictor.load(self.run_dir, self.model and _imported(self.model), portable=True)
        examples = learned.read(self.input)
        for line in build.unfamiliar(learned.experiment.preprocessor, examples.inputs):
            say(f"warning: {self.input}: {line}")
        sets = None
        if self.coverage is not None:
            sets = learned.sets(self.coverage, method=self.sets, by_class=self.by_class)
        request = problems.Request(self.input, self.output, self.sample_submission, self.draw, say, sets, self.coverage)
        scores = functools.cache(lambda: learned.predict(examples.inputs))
        written = problems.get(learned.problem, learned.class_names).write(
            request, examples, scores, learned.thresholds
        )
        if learned.reference is not None:
            differences = shift.compare(
                learned.reference,
                examples.inputs,
                scores(),
                learned.problem,
                learned.class_names,
                learned.experiment.preprocessor,
            )
            if (warning := shift.line(differences)) is not None:
                say(f"warning: {self.input}: {warning}; the metrics of the test need not hold for them")
        say(f"{written} by {learned.origin}, saved as {self.output}")
        if self.json:
            record = {"run_dir": str(self.run_dir), "output": str(self.output), "examples": len(examples.ids)}
            console.say_json(record | {"synthetic": learned.data["synthetic"]})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explain(OutputSettings):
    """Explain predictions: what speaks for the predicted class, and what against it.

    Pixels of an image (integrated gradients or Grad-CAM), words of a text
    (integrated gradients), or columns of a row (Shapley values), and how much each
    column of a table matters. The report of the run shows them.

    Examples:
        jaxcls explain --run-dir runs/sentiment-1a2b3c4d
        jaxcls explain --run-dir runs/csv-1a2b3c4d --rows 0 17 --split validation
        jaxcls explain --run-dir runs/fashion_mnist-1a2b3c4d --input shoe.png --output why.json
    """

    run_dir: Path
    """folder of the run"""
    split: Literal["test", "validation", "train"] = "test"
    """the split of --rows"""
    rows: tuple[int, ...] | None = None
    """examples of the split, numbered from 0 (default: the most confident mistakes of the test)"""
    input: Path | None = None
    """other examples to explain instead, as for jaxcls predict"""
    method: Literal["auto", "integrated_gradients", "grad_cam"] = "auto"
    """of images; auto: integrated_gradients"""
    output: Path | None = None
    """JSON file to write as well"""
    overwrite: bool = False
    """replace the output if it exists"""

    def run(self) -> None:
        if self.input is not None and self.rows is not None:
            raise InputError("give either --input or --rows.")
        if self.output is not None:
            console.check_output(self.output, overwrite=self.overwrite)
        from jaxcls.reports import html_report, run_directory
        from jaxcls.tasks import explanation, predictor

        say = console.sayer(quiet=self.quiet, json=self.json)
        learned = predictor.load(self.run_dir)
        if self.input is not None:
            record = explanation.explain_file(learned, self.input, self.method, say)
        else:
            rows, mistakes = self.rows, self.rows is None
            if rows is None:
                summary = run_directory.read_records(self.run_dir).summary
                rows = tuple(mistake["row"] for mistake in summary.get("mistakes", ()))
                if not rows or self.split != "test":
                    raise InputError("give --rows: only a test in which mistakes were made has examples of its own.")
            rows = tuple(dict.fromkeys(rows))
            record = explanation.explain_split(
                learned, self.split, rows, mistakes=mistakes, method=self.method, say=say
            )
            run_directory.write_explanations(self.run_dir, record)
            report = self.run_dir / "report.html"
            files.write_atomically(report, html_report.render(run_directory.read_records(self.run_dir)))
        for one in record["examples"]:
            name = one.get("id", one.get("row"))
            say(f"{name}: " + "\n".join(explanation.lines(one)))
        if record.get("importance"):
            rows_of_table = [
                (one["column"], f"{one['increase']:.4f}", f"{one['error']:.4f}") for one in record["importance"]
            ]
            say(f"\n{text_table([('column', 'increase of the log loss', 'error'), *rows_of_table], left=1)}\n")
        if self.input is None:
            say(f"saved in {self.run_dir}; report: {report}#explanations")
        if self.output is not None:
            files.write_atomically(self.output, json.dumps(record, indent=1) + "\n")
            say(f"saved as {self.output}")
        if self.json:
            console.say_json({"run_dir": str(self.run_dir)} | record)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve a finished run or an export over HTTP.

    POST /predict answers {"inputs": [...]}, texts, rows or images; / is a page to try
    it, /health and /ready are for what watches it, /metrics for Prometheus.

    Examples:
        jaxcls serve --run-dir runs/fashion_mnist-1a2b3c4d
        curl --data-binary @shoe.png -H 'Content-Type: image/png' http://127.0.0.1:8000/predict
    """

    run_dir: Path
    """folder of the run, or an export as StableHLO"""
    host: str = "127.0.0.1"
    """address to listen at; 0.0.0.0 for all of the machine, to which anyone may connect"""
    port: int = 8000
    """port to listen at; 0 for any free one"""
    max_batch: int = 64
    """most examples of several requests that are computed together; with 1, each request is computed alone, to the bits
    of jaxcls predict"""
    max_waiting: int = 1024
    """most examples that wait; further requests are refused"""
    max_wait_ms: float = 0.0
    """how long a batch that is not full waits for more requests"""
    max_bytes: int = 1 << 24
    """most bytes of a request"""
    quiet: bool = False
    """print errors only"""

    def run(self) -> None:
        for name, least in (("max_batch", 1), ("max_waiting", 1), ("max_wait_ms", 0), ("max_bytes", 1), ("port", 0)):
            if not getattr(self, name) >= least:
                raise InputError(f"{flag(name)} is {getattr(self, name)}; it must be at least {least}.")
        try:
            from jaxcls.cli.serving import app, server, service
        except ModuleNotFoundError as error:
            raise InputError(f"{error.name} is not installed: pip install 'jaxcls[serve]'.") from error

        say = console.sayer(quiet=self.quiet, json=False)
        limits = app.Limits(self.max_batch, self.max_waiting, self.max_wait_ms / 1000, self.max_bytes)
        server.serve(service.load(self.run_dir), self.host, self.port, limits, say)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Write the HTML report of a run, or compare several.

    Examples:
        jaxcls report --run-dir runs/fashion_mnist-1a2b3c4d --open
        jaxcls report --compare runs/small runs/large --output comparison.html
    """

    run_dir: Path | None = None
    """folder of the run"""
    compare: tuple[Path, ...] | None = None
    """folders of 2 to 24 runs of one task to compare"""
    output: Path | None = None
    """HTML file to write (default: report.html in --run-dir, or comparison.html)"""
    overwrite: bool = False
    """replace the output if it exists; report.html in --run-dir is always replaced"""
    open: bool = False
    """open the report in the browser"""

    def run(self) -> None:
        if (self.run_dir is None) == (self.compare is None):
            raise InputError("give either --run-dir, for the report of one run, or --compare, for several.")
        default = Path("comparison.html") if self.run_dir is None else self.run_dir / "report.html"
        output = self.output or default
        if self.output or self.compare:
            console.check_output(output, overwrite=self.overwrite)
        from jaxcls.reports import html_report, run_directory

        if self.run_dir is not None:
            html = html_report.render(run_directory.read_records(self.run_dir))
        else:
            html = html_report.render_comparison([run_directory.read_records(path) for path in self.compare or ()])
        files.write_atomically(output, html)
        console.say(f"saved as {output}")
        if self.open and not webbrowser.open(output.resolve().as_uri()):
            console.say("no browser was found to open it with", file=sys.stderr)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export(OutputSettings):
    """Export a finished run as StableHLO, ONNX or safetensors, to use without jaxcls.

    Examples:
        jaxcls export --run-dir runs/fashion_mnist-1a2b3c4d --output model
        python model/loader.py --input images.npy --output predicted.csv
        jaxcls export --run-dir runs/fashion_mnist-1a2b3c4d --output model --format onnx --weights int8
    """

    run_dir: Path
    """folder of the run"""
    output: Path
    """new folder for the exported files and their SHA-256 checksums"""
    format: Literal["stablehlo", "safetensors", "onnx", "lora"] = "stablehlo"
    """stablehlo: programs for CPU, CUDA and TPU with a loader that needs only jax; safetensors: the weights; onnx: a
    program for ONNX runtimes (pip install 'jaxcls[onnx]'); lora: what a run with --lora-rank learned, alone"""
    weights: Literal["float32", "int8"] = "float32"
    """int8: matrices and kernels in 8 bits with a scale for each output, a quarter of the size"""
    with_preprocessing: bool = False
    """the ONNX model takes images of any size, or the columns of a table"""

    def run(self) -> None:
        from jaxcls.export import folder
        from jaxcls.tasks import predictor

        folder.check_output(self.output)
        learned = predictor.load(self.run_dir)
        size = folder.export(
            self.output,
            learned.exportable(),
            self.format,
            weights=self.weights,
            with_preprocessing=self.with_preprocessing,
        )
        say = console.sayer(quiet=self.quiet, json=self.json)
        in_8_bits = " in 8 bits" if self.weights == "int8" else ""
        say(f"{learned.origin} as {self.format}{in_8_bits}, {size:,} bytes, saved in {self.output}")
        if self.json:
            record = {"run_dir": str(self.run_dir), "output": str(self.output), "format": self.format, "bytes": size}
            console.say_json(record | {"weights": self.weights, "synthetic": learned.data["synthetic"]})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FindLr(Settings):
    """Find a learning rate with the range test.

    The learning rate rises exponentially from --lowest to --highest; the loss shows
    from where it falls, and from where training diverges. Other options are those
    of training.

    Examples:
        jaxcls find-lr --task fashion_mnist
        jaxcls find-lr --task fashion_mnist --model resnet --optimizer sgd --momentum 0.9
    """

    # What the test sets itself, or has no use for.
    OMITTED = (
        *settings.names(settings.PopulationSettings),
        *settings.names(settings.ScheduleSettings),
        *settings.names(settings.EvaluationSettings),
        *("learning_rate", "epochs", "max_skipped_steps", "debug"),
        *("run_dir", "continue_from", "resume", "list_tasks", "checkpoint_seconds", "stall_seconds", "profile"),
        *("train_metrics", "tensorboard", "wandb", "distributed", "join_seconds"),
    )

    lowest: float = 1e-6
    """learning rate of the first step"""
    highest: float = 1.0
    """learning rate of the last step"""
    steps: int = 200
    """training steps; the test ends earlier if the loss exceeds 4 times its minimum"""
    output: Path | None = None
    """folder for find_lr.csv and find_lr.svg"""

    def run(self) -> None:
        if self.output is not None and self.output.exists() and not self.output.is_dir():
            raise InputError(f"--output {self.output} is a file; give a folder.")
        from jaxcls.tasks import learning_rate_search as range_test

        say = console.sayer(quiet=self.quiet, json=self.json)
        with stop_requests():
            search = range_test.search(self, lowest=self.lowest, highest=self.highest, steps=self.steps, say=say)
        suggestions = range_test.suggest(search)
        say(range_test.plot(search))
        say(range_test.summary(search, suggestions, self.steps))
        if self.output is not None:
            from jaxcls.data.formats import tables

            self.output.mkdir(parents=True, exist_ok=True)
            columns = {"rate": search.rates, "loss": search.losses, "smoothed_loss": search.smoothed}
            tables.write_csv(self.output / "find_lr.csv", {"step": range(1, len(search.rates) + 1), **columns})
            (self.output / "find_lr.svg").write_text(range_test.svg(search, suggestions.recommended), encoding="utf-8")
            say(f"saved in {self.output}")
        if self.json:
            console.say_json({"learning_rate": suggestions.recommended} | suggestions._asdict())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search(Settings):
    """Search for the settings with the best validation metric.

    Trials are points of the space that --space describes. The best of them train
    to the end, the others stop early. The same command continues a search. Other
    options are those of training; --monitor is what the trials are compared by. With
    --seeds, a trial trains a model for each, and its value is their mean.

    Examples:
        jaxcls search --task fashion_mnist --space space.toml
        jaxcls search --task leaf --data-dir leaves --space space.toml --trials 200 --minutes 30
    """

    # What a search decides itself, or has no use for.
    OMITTED = (
        *("folds", "ensemble", "run_dir", "continue_from", "resume", "list_tasks", "profile", "debug"),
        *("tune_threshold", "calibrate"),
        *("checkpoint_seconds", "train_metrics", "tensorboard", "wandb", "distributed", "join_seconds"),
    )

    space: Path
    """TOML file with a range or choices of each setting to search, such as: learning_rate = {low = 1e-4, high = 0.1,
    log = true}, or model = {choices = ["cnn", "mlp"]}"""
    trials: int = 64
    """number of trials; more of them continue a search"""
    minutes: float | None = None
    """minutes of training, after which the search ends (default: no limit); more of them continue a search"""
    sampler: Literal["sobol", "random"] = "sobol"
    """how the trials are spread over the space: evenly by a Sobol sequence, or at random"""
    rungs: int = 3
    """numbers of epochs at which trials stop or are promoted; 1 trains each for all --epochs"""
    reduction: int = 3
    """one of this many trials is promoted from each rung, to this many times its epochs"""
    search_dir: Path | None = None
    """folder of the search (default: a folder in runs/ named after the task and a hash of the settings)"""

    def run(self) -> None:
        from jaxcls.tasks import search
        from jaxcls.training import search_space

        say = console.sayer(quiet=self.quiet, json=self.json)
        space = search_space.read(self.space)
        options = search.Options(**{name: getattr(self, name) for name in search.Options._fields})
        user_settings = Settings(**{name: getattr(self, name) for name in settings.names(Settings)})
        with stop_requests() as stop:
            stop.training = True
            result = search.search(user_settings, space, options, self.search_dir, say=say, stop=stop)
        say(f"\n{search.table(result)}\n")
        say(f"saved in {result.directory}; report: {result.directory / 'report.html'}")
        say(f"train the best one with:\n{result.command}")
        if self.validation_fraction is None and "--validation-fraction" in result.command:
            say("without --validation-fraction, it learns from more examples")
        if self.json:
            record = {"search_dir": str(result.directory), "command": result.command}
            console.say_json(record | {name: result.winner[name] for name in ("trial", "settings", "value")})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Describe(Settings):
    """Print the memory that training takes on each device of a mesh.

    The step is compiled for as many simulated devices, on any computer, and not run.
    Other options are those of training.

    Examples:
        jaxcls describe --task fashion_mnist --model resnet --mesh data=4,fsdp=2
        jaxcls describe --task text_csv --data texts.csv --pretrained encoder --mesh fsdp=8
    """

    # What runs nothing has no use for.
    OMITTED = (
        *settings.names(settings.PopulationSettings),
        *("run_dir", "continue_from", "resume", "list_tasks", "profile", "debug", "tune_threshold"),
        *("checkpoint_seconds", "train_metrics", "tensorboard", "wandb", "distributed", "join_seconds"),
        *("stall_seconds", "data_on", "deterministic", "patience", "restore_best", "max_skipped_steps"),
    )

    def simulate(self) -> None:
        """Simulates the devices of the mesh, unless devices are in use already."""
        import jax

        from jaxcls.training import mesh

        sizes = mesh.parse(self.mesh) if self.mesh else {}
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", math.prod(sizes.values()))
            jax.config.update("jax_platforms", "cpu")

    def run(self) -> None:
        from jaxcls.tasks import memory_table

        say = console.sayer(quiet=self.quiet, json=self.json)
        described = memory_table.describe(self, say=say)
        say(text_table(memory_table.lines(described)))
        say("activations are those of a program for CPUs; gradients are among them")
        if self.json:
            console.say_json(described)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """Start a command in several processes of this machine, which train together.

    The output of process 0 is shown, and errors of the others with their number. When
    one fails, all end; signals go to all. With GPUs, each process has one of them.

    Examples:
        jaxcls launch --processes 2 -- train --task fashion_mnist
    """

    processes: int = 2
    """number of processes"""
    port: int | None = None
    """port at which they meet (default: a free one)"""
    command: tuple[str, ...] = dataclasses.field(metadata={"positional": True})
    """the command and its options, after --"""

    def run(self) -> int:
        from jaxcls.cli import launcher

        return launcher.launch(self.command, self.processes, self.port)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """Examine a training step that was saved because it was not finite.

    Prints the output of each layer, and the first value that is not finite. The exit
    status is 1 if there is one.

    Examples:
        jaxcls replay runs/fashion_mnist-1a2b3c4d/debug/step-000012.npz
    """

    file: Path = dataclasses.field(metadata={"positional": True})
    """file that training with --debug saved"""

    def run(self) -> int:
        import jax

        from jaxcls.data.batching import copies
        from jaxcls.tasks import build
        from jaxcls.training import debugging

        record = debugging.read_record(self.file)
        if "settings" not in record:
            raise InputError(
                f"{self.file} was saved by a program that uses jaxcls.compile: examine it there, with "
                "compiled.replay()."
            )
        user_settings = settings.from_record(record["settings"], where=str(self.file))
        # The data is read as well: class weights come from the training examples.
        built = build.build(user_settings, say=console.say)
        step_size = built.experiment.step_size(built.settings.batch_size)
        shapes = jax.eval_shape(lambda: copies(built.train, step_size))
        state, batch = debugging.load(self.file, built.experiment.state_shapes, shapes)
        finding = debugging.examine(built.experiment, state, batch)
        console.say(f"\n{text_table(debugging.layers(built.experiment, state, batch), left=2)}\n")
        console.say(f"step {int(state.step)}: {finding or 'everything is finite'}")
        if rows := record.get("rows"):
            console.say(f"rows of the training examples: {listed(rows)}")
        return 0 if finding is None else console.FAILED


def _list_tasks() -> None:
    """Prints the tasks; what is printed is cached for these sources, because importing the tasks imports JAX."""
    from jaxcls._utils import array_cache

    sources = sorted(Path(jaxcls.__file__).parent.rglob("*.py"))
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    console.say(array_cache.cached_record("tasks", key, _described_tasks))


def _described_tasks() -> str:
    from jaxcls.tasks import TASKS

    lines = []
    for task in TASKS.values():
        problem: Any = task.problem
        if task.takes("data"):
            problem = "the problem follows from your labels"
        elif isinstance(problem, dict):
            problem = ", ".join(f"{output}: {name}" for output, name in problem.items())
        lines.append(f"{task.name}: {task.summary} ({problem})\n  models: {', '.join(task.models)}\n  presets:")
        rows = [
            (f"    {name}", recipe.model, f"{recipe.epochs} epochs", recipe.optimizer, recipe.loss)
            for name, recipe in ((name, task.recipe(name)) for name in task.presets)
        ]
        lines.append(f"{text_table(rows, left=5)}\n")
    return "\n".join(lines)


def _with_data(of_run: Settings, options: Evaluate) -> Settings:
    """The settings of the run with the data of the options."""
    replaced = settings.select(options, DataSource)
    if replaced.keys() & {"data", "data_dir", "source"}:
        replaced = {"source": "auto", "data_dir": None, **replaced}
    if "data" in replaced:
        replaced = {"validation_data": None, "test_data": None, **replaced}
    return dataclasses.replace(of_run, **replaced)


def _imported(name: str) -> Any:
    """Imports 'module:attribute', also from the current folder."""
    sys.path.insert(0, "")
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"--model {name}: {error}; give module:function, such as my_package.models:build.") from error


# By the name on the command line.
COMMANDS = {
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "explain": Explain,
    "serve": Serve,
    "report": Report,
    "export": Export,
    "find-lr": FindLr,
    "search": Search,
    "describe": Describe,
    "launch": Launch,
    "replay": Replay,
}
