"""Confidence intervals of paired differences, for the experiments that compare recipes over seeds."""

import argparse

import numpy as np

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def half_width(differences: np.ndarray) -> float:
    """Half the width of the 95 % confidence interval of the mean of paired differences."""
    return STUDENT[len(differences) - 1] * differences.std(ddof=1) / np.sqrt(len(differences))


def check_seeds(parser: argparse.ArgumentParser, seeds: list[int]) -> None:
    """Ends with an error if an interval cannot be computed from these seeds."""
    if not 2 <= len(seeds) <= len(STUDENT) + 1:
        parser.error(
            f"--seeds: a confidence interval needs 2 to {len(STUDENT) + 1} seeds, and {len(seeds)} were given."
        )


def cell(values: np.ndarray, baseline: np.ndarray) -> str:
    """The mean of the values, with the paired difference to the baseline in parentheses."""
    difference = values - baseline
    if not difference.any():
        return f"{values.mean():.3f}"
    return f"{values.mean():.3f} ({difference.mean():+.3f} ± {half_width(difference):.3f})"
