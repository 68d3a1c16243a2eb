"""Generated train.csv, test.csv and sample_submission.csv in the format of Kaggle's Leaf Classification.

As in the real set there are 99 species with ten training leaves each, margin and texture are histograms with many
zeros, and the shape's values are so small that a model cannot use them without standardization. Species of a genus
resemble each other, and every second one differs from the one before it by its shape alone.
"""

from pathlib import Path

import numpy as np

from jaxcls.data.formats.tables import Table, write_csv

BINS = 64
# Genus and species, in the order of the columns of Kaggle's submission.
SPECIES = tuple(Path(__file__).with_name("leaf_species.txt").read_text(encoding="utf-8").split())
_HARMONICS = 8


def write(folder: Path, *, species: int = len(SPECIES), per_class: int = 10, queries: int = 6, seed: int = 0) -> None:
    """Writes the three files.

    Args:
      folder: where to write them.
      species: the number of species, the first ones of SPECIES.
      per_class: the number of leaves of each species in train.csv.
      queries: the number of leaves of each species in test.csv, which has no labels.
      seed: the seed of all that is random.
    """
    rng = np.random.default_rng(seed)
    names = np.array(SPECIES[:species], object)
    texture, margin = (_histograms(rng, names) for _ in range(2))
    outlines = rng.normal(0, 0.1, (species, _HARMONICS, 2))

    leaves = rng.permutation(np.repeat(np.arange(species), per_class + queries))
    columns = {
        "margin": _sampled_histograms(rng, margin[leaves]),
        "shape": _contours(rng, outlines[leaves]),
        "texture": _sampled_histograms(rng, texture[leaves]),
    }
    table: Table = {"id": np.arange(1, len(leaves) + 1), "species": names[leaves]}
    table |= {f"{name}{i + 1}": values[:, i] for name, values in columns.items() for i in range(BINS)}

    # The ids of the two files are interleaved, as in Kaggle's.
    number = np.empty(len(leaves), int)  # of a leaf within its species
    number[np.argsort(leaves, kind="stable")] = np.tile(np.arange(per_class + queries), species)
    test = number >= per_class
    write_csv(folder / "train.csv", {name: column[~test] for name, column in table.items()})
    write_csv(folder / "test.csv", {name: column[test] for name, column in table.items() if name != "species"})
    uniform = np.full(test.sum(), 1 / species)
    write_csv(folder / "sample_submission.csv", {"id": table["id"][test]} | dict.fromkeys(names, uniform))


def _histograms(rng: np.random.Generator, names: np.ndarray) -> np.ndarray:
    """The typical histogram of each species, (species, BINS), with rows that sum to 1."""
    genera, genus = np.unique([name.partition("_")[0] for name in names], return_inverse=True)
    of_genus = rng.dirichlet(np.full(BINS, 0.3), len(genera))
    of_species = rng.dirichlet(np.full(BINS, 0.3), len(names))
    typical = 0.5 * of_genus[genus] + 0.5 * of_species
    number = np.arange(len(names)) - np.searchsorted(genus, genus)  # of a species within its genus
    twins = np.flatnonzero(number % 2 == 1)
    typical[twins] = typical[twins - 1]
    return typical


def _sampled_histograms(rng: np.random.Generator, typical: np.ndarray) -> np.ndarray:
    """The histogram of each leaf, in units of 1/512 to six decimals as in Kaggle's files."""
    values = rng.standard_gamma(12 * typical) + 1e-12
    return np.round(rng.multinomial(512, values / values.sum(axis=1, keepdims=True)) / 512, 6)


def _contours(rng: np.random.Generator, outlines: np.ndarray) -> np.ndarray:
    """The distances of BINS points of each leaf's outline from its center, about 0.0005."""
    angles = np.outer(np.arange(1, _HARMONICS + 1), np.linspace(0, 2 * np.pi, BINS, endpoint=False))
    waves = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    amplitudes = outlines + rng.normal(0, 0.08, outlines.shape)
    size = 5e-4 * np.exp(rng.normal(0, 0.15, (len(outlines), 1)))
    return np.round(np.abs(size * (1 + np.einsum("lhw,hwb->lb", amplitudes, waves))), 12)
