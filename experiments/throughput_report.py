"""What experiments/throughput.py measured: kept as JSON, and drawn from it as a table and a chart."""

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
      versions: of its packages, as far as they are installed.
      rates: examples a second, one a round.
      start_seconds: from the start of the process to the end of the second step.
      compile_seconds: what the first two steps took longer than the next two.
      memory: the most bytes that the process held.
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
    """What was measured side by side.

    Attributes:
      options: those of the command.
      peak: floating-point operations a second of the fastest matrix product.
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
        """Operations a second."""
        return self.rate(row) * training_flops(self.model)

    def ratio(self, row: Row, base: str) -> float | None:
        """The median of the ratios of each round to another contender's rate; None where that has none."""
        rates = next((other.rates for other in self.rows if other.contender == base), [])
        pairs = zip(row.rates, rates, strict=True) if rates else ()
        return statistics.median([rate / other for rate, other in pairs]) if rates else None


def write(cell: Cell, path: Path) -> None:
    """Puts a cell in the place of the one of the same model and batch size, and draws all anew beside it."""
    cells = {(old.model, old.batch_size): old for old in read(path)} if path.exists() else {}
    cells[cell.model, cell.batch_size] = cell
    order = ["mlp", "cnn", "resnet", "transformer", "retinanet"]
    ordered = sorted(cells.values(), key=lambda cell: (order.index(cell.model), cell.batch_size))
    path.write_text(json.dumps([dataclasses.asdict(cell) for cell in ordered], indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(page(ordered), encoding="utf-8")
    draw(ordered, path.with_suffix(".svg"))


def read(path: Path) -> list[Cell]:
    record = json.loads(path.read_text(encoding="utf-8"))
    return [Cell(**{**cell, "rows": [Row(**row) for row in cell["rows"]]}) for cell in record]


def table(cells: list[Cell]) -> str:
    """One row for each contender of each cell."""
    columns = ["model", "batch", "contender", "examples a second", "to Keras on JAX", "to PyTorch", "GFLOP/s"]
    columns += ["of the peak", "memory, MB", "start, s", "compiling, s"]
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
    left_out = [
        f"- {cell.model}, batch size {cell.batch_size}: {CONTENDERS[row.contender].title} is left out: {row.failure}"
        for cell in cells
        for row in cell.rows
        if row.failure
    ]
    return "\n".join(lines + (["", *left_out] if left_out else [])) + "\n"


def page(cells: list[Cell]) -> str:
    """The text of experiments/throughput.md."""
    return "\n".join(
        [
            "# Throughput",
            "",
            "Written by `python experiments/throughput.py`, whose head says how it is measured. Images are the real",
            "Fashion-MNIST; the tokens of the transformer are **synthetic**, 256 a text, none of them padding, and so",
            "are the scenes of the detector, noise of 128 x 128 pixels with one box to eight.",
            "",
            *_provenance(cells),
            "",
            "![Examples a second by batch size, a panel for each model](throughput.svg)",
            "",
            "## How many times as fast as each peer jaxcls is",
            "",
            *_summary(cells),
            "",
            "## What each contender reaches",
            "",
            "Examples a second: the median, and the least and the most of the rounds. Start: from the start of the",
            "process to the end of the second step, nothing cached; compiling: what of it the first two steps took",
            "longer than the next two. Memory: the most that the process held, the data included. Keras on TensorFlow",
            "makes some rounds at a tenth of its rate in others, for a reason that was not found: compare with the",
            "most that it reaches.",
            "",
            table(cells),
        ]
    )


def draw(cells: list[Cell], path: Path) -> None:
    """Examples a second over batch sizes, a panel for each model and a line for each contender."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    # The same figures are the same file.
    pyplot.rcParams |= {"svg.hashsalt": "throughput", "svg.fonttype": "none", "font.size": 9}
    models = list(dict.fromkeys(cell.model for cell in cells))
    figure, panels = pyplot.subplots(
        1, len(models), figsize=(3.2 * len(models), 3.6), squeeze=False, layout="constrained"
    )
    for model, panel in zip(models, panels[0], strict=True):
        of_model = [cell for cell in cells if cell.model == model]
        for place, name in enumerate(CONTENDERS):
            points = [(cell, row) for cell in of_model for row in cell.rows if row.contender == name and row.rates]
            own = name.startswith("jaxcls")
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
                color="black" if own else f"C{place % 10}",
                linestyle=line,
                linewidth=2 if own else 1.2,
                zorder=3 if own else 2,
                marker=marker,
                markersize=6 if own else 4,
                # Filled or hollow, so that its rows can be told apart where there is one batch size and no line.
                markerfacecolor="white" if name == "jaxcls-pure" else None,
                capsize=2,
            )
        sizes = sorted({cell.batch_size for cell in of_model})
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [str(size) for size in sizes], minor=False)
        panel.minorticks_off()
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter("{x:,.0f}")
        panel.grid(axis="y", alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_title(model)
        panel.set_xlabel("batch size")
    panels[0][0].set_ylabel("examples a second")
    figure.legend(
        *panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=(len(CONTENDERS) + 1) // 2
    )
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _provenance(cells: list[Cell]) -> list[str]:
    """A line for each machine, software and setting that cells were measured with, and which ones."""
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
        f"| model | batch | | {' | '.join(CONTENDERS[name].title for name in peers)} | of the peak |",
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
