"""A table as plain text."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Aligns rows of cells as columns, separated by two spaces.

    Args:
      rows: the cells; every row has as many.
      left: the number of first columns that are aligned left; the others, of numbers, are aligned right.

    >>> print(text_table([("layer", "parameters"), ("Dense_0", "15")]))
    layer    parameters
    Dense_0          15
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        [cell.ljust(width) for cell, width in zip(row[:left], widths, strict=False)]
        + [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        for row in rows
    ]
    return "\n".join("  ".join(row).rstrip() for row in aligned)
