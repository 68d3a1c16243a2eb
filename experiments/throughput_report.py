"""The measurements of experiments/throughput.py: stored as JSON, shown as a table and a chart."""

import dataclasses
import json
import statistics
from pathlib import Path

from peers import CONTENDERS
from peers.workloads import training_flops


@dataclasses.dataclass
class Row:
    """A contender in one cell.

    Attributes:
      versions: versions of its installed packages.
      rates: examples per second of each round.
      start_seconds: from the start of the process to the end of the second step.
      compile_seconds: the time of the first two steps minus that of the next two.
      memory: peak memory of the process in bytes.
      failure: why there are no rates.
    """

    contender: str
    versions: dict[str, str]
    parameters: int = 0
    rates: list[float] = dataclasses.field(default_factory=list)
    start_seconds: float = 0.0
    compile_seconds: float = 0.0
    memory: int = 0
    failure: str | None = None


@dataclasses.dataclass
class Cell:
    """The measurements of all contenders for one model and batch size.

    Attributes:
      options: the options of the command.
      peak: floating-point operations per second of the fastest matrix product.
    """

    model: str
    batch_size: int
    machine: str
    options: str
    peak: float
    rows: list[Row]

    def rate(self, row: Row) -> float:
        return statistics.median(row.rates)

    def flops(self, row: Row) -> float:
        """Floating-point operations per second."""
        return self.rate(row) * training_flops(self.model)

    def ratio(self, row: Row, base: str) -> float | None:
        """The median over the rounds of the ratio to another contender; None if that one has no rates."""
        rates = next((other.rates for other in self.rows if other.contender == base), [])
        pairs = zip(row.rates, rates, strict=True) if rates else ()
        return statistics.median([rate / other for rate, other in pairs]) if rates else None


def write(cell: Cell, path: Path) -> None:
    """Replaces the cell of the same model and batch size, and writes the table and the chart again."""
    cells = {(old.model, old.batch_size): old for old in read(path)} if path.exists() else {}
    cells[cell.model, cell.batch_size] = cell
    order = ["mlp", "cnn", "resnet", "transformer", "retinanet"]
    ordered = sorted(cells.values(), key=lambda cell: (order.index(cell.model), cell.batch_size))
    path.write_text(json.dumps([dataclasses.asdict(cell) for cell in ordered], indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(document(ordered), encoding="utf-8")
    draw(ordered, path.with_suffix(".svg"))


def read(path: Path) -> list[Cell]:
    record = json.loads(path.read_text(encoding="utf-8"))
    return [Cell(**{**cell, "rows": [Row(**row) for row in cell["rows"]]}) for cell in record]


def table(cells: list[Cell]) -> str:
    """One row for each contender of each cell."""
    columns = ["model", "batch", "contender", "examples/s", "ratio to Keras on JAX", "ratio to PyTorch", "GFLOP/s"]
    columns += ["share of the peak", "memory, MB", "start, s", "compilation, s"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for cell in cells:
        for row in cell.rows:
            if row.failure:
                continue
            lines.append(
                f"| {cell.model} | {cell.batch_size} | {CONTENDERS[row.contender].title} "
                f"| {cell.rate(row):,.0f} ({min(row.rates):,.0f} to {max(row.rates):,.0f}) "
                f"| {_ratio(cell, row, 'keras-jax')} | {_ratio(cell, row, 'torch')} "
                f"| {cell.flops(row) / 1e9:.0f} | {cell.flops(row) / cell.peak:.0%} | {row.memory / 1e6:,.0f} "
                f"| {row.start_seconds:.1f} | {row.compile_seconds:.1f} |"
            )
    skipped = [
        f"- {cell.model}, batch size {cell.batch_size}: {CONTENDERS[row.contender].title} skipped: {row.failure}"
        for cell in cells
        for row in cell.rows
        if row.failure
    ]
    return "\n".join(lines + (["", *skipped] if skipped else [])) + "\n"


def document(cells: list[Cell]) -> str:
    """The text of experiments/throughput.md."""
    return "\n".join(
        [
            "# Throughput",
            "",
            "Written by `python experiments/throughput.py`, whose docstring describes the method. Images are the real",
            "Fashion-MNIST; the tokens of the transformer (256 per text, no padding) and the scenes of the detector",
            "(noise of 128 x 128 pixels with one to eight boxes) are **synthetic**.",
            "",
            *_provenance(cells),
            "",
            "![Examples per second by batch size, one panel per model](throughput.svg)",
            "",
            "## Speed of jaxcls relative to each contender",
            "",
            *_summary(cells),
            "",
            "## All measurements",
            "",
            "Examples per second: the median of the rounds, with the range in parentheses. Start: from the start of",
            "the process to the end of the second step, with nothing cached. Compilation: the time of the first two",
            "steps minus that of the next two. Memory: the peak of the process, including the data. Keras on",
            "TensorFlow runs some rounds at a tenth of its rate in others; we do not know why, so compare with the",
            "upper end of its range.",
            "",
            table(cells),
        ]
    )


def draw(cells: list[Cell], path: Path) -> None:
    """Draws examples per second over batch sizes, with a panel per model and a line per contender."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # Reproducible files.
    pyplot.rcParams |= {"svg.hashsalt": "throughput", "svg.fonttype": "none", "font.size": 9}
    models = list(dict.fromkeys(cell.model for cell in cells))
    figure, panels = pyplot.subplots(
        1, len(models), figsize=(3.2 * len(models), 3.6), squeeze=False, layout="constrained"
    )
    for model, panel in zip(models, panels[0], strict=True):
        model_cells = [cell for cell in cells if cell.model == model]
        for index, name in enumerate(CONTENDERS):
            points = [(cell, row) for cell in model_cells for row in cell.rows if row.contender == name and row.rates]
            is_jaxcls = name.startswith("jaxcls")
            line, marker = {"jaxcls": ("-", "o"), "jaxcls-bfloat16": ("--", "s"), "jaxcls-pure": (":", "D")}.get(
                name, ("-", "o")
            )
            panel.errorbar(
                [cell.batch_size for cell, _ in points],
                [cell.rate(row) for cell, row in points],
                [
                    [cell.rate(row) - min(row.rates) for cell, row in points],
                    [max(row.rates) - cell.rate(row) for cell, row in points],
                ],
                label=CONTENDERS[name].title,
                color="black" if is_jaxcls else f"C{index % 10}",
                linestyle=line,
                linewidth=2 if is_jaxcls else 1.2,
                zorder=3 if is_jaxcls else 2,
                marker=marker,
                markersize=6 if is_jaxcls else 4,
                # Hollow, to distinguish it where there is one batch size and so no line.
                markerfacecolor="white" if name == "jaxcls-pure" else None,
                capsize=2,
            )
        sizes = sorted({cell.batch_size for cell in model_cells})
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [str(size) for size in sizes], minor=False)
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter("{x:,.0f}")
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_title(model)
        panel.set_xlabel("batch size")
    panels[0][0].set_ylabel("examples per second")
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=(len(CONTENDERS) + 1) // 2
    )
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _provenance(cells: list[Cell]) -> list[str]:
    """A line for each machine, software and setting, with its cells."""
    lines: dict[str, list[str]] = {}
    for cell in cells:
        versions = {package: version for row in cell.rows for package, version in row.versions.items()}
        software = ", ".join(f"{package} {version}" for package, version in versions.items())
        lines.setdefault(f"{cell.machine}, {software}; `{cell.options}`", []).append(f"{cell.model} {cell.batch_size}")
    return [f"- {', '.join(names)}: {line}." for line, names in lines.items()]


def _summary(cells: list[Cell]) -> list[str]:
    compared = ("jaxcls", "jaxcls-bfloat16")
    peers = [name for name in CONTENDERS if name not in compared]
    lines = [
        f"| model | batch | | {' | '.join(CONTENDERS[name].title for name in peers)} | share of the peak |",
        "|---" * (len(peers) + 4) + "|",
    ]
    for cell in cells:
        for row in cell.rows:
            if row.contender in compared and row.rates:
                ratios = " | ".join(_ratio(cell, row, peer) for peer in peers)
                share = cell.flops(row) / cell.peak
                title = CONTENDERS[row.contender].title
                lines.append(f"| {cell.model} | {cell.batch_size} | {title} | {ratios} | {share:.0%} |")
    return lines


def _ratio(cell: Cell, row: Row, base: str) -> str:
    ratio = cell.ratio(row, base)
    return "-" if ratio is None else f"{ratio:.2f}"
