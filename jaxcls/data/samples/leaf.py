"""Synthetic train.csv, test.csv and sample_submission.csv in the format of Kaggle's Leaf Classification.

As in the real set there are 99 species with ten leaves each to learn from, margin and texture are histograms with many
zeros, and the numbers of the shape are so small that a model that does not standardise them does not see them. Species
of a genus resemble each other, and every second of them differs from the one before by its shape alone.
"""

from pathlib import Path

import numpy as np

from jaxcls.data.formats.tables import Table, write_csv

BINS = 64
# Genus and species, in the order of the columns of Kaggle's submission.
SPECIES = tuple(
    """
    Acer_Capillipes Acer_Circinatum Acer_Mono Acer_Opalus Acer_Palmatum Acer_Pictum Acer_Platanoids Acer_Rubrum
    Acer_Rufinerve Acer_Saccharinum Alnus_Cordata Alnus_Maximowiczii Alnus_Rubra Alnus_Sieboldiana Alnus_Viridis
    Arundinaria_Simonii Betula_Austrosinensis Betula_Pendula Callicarpa_Bodinieri Castanea_Sativa Celtis_Koraiensis
    Cercis_Siliquastrum Cornus_Chinensis Cornus_Controversa Cornus_Macrophylla Cotinus_Coggygria Crataegus_Monogyna
    Cytisus_Battandieri Eucalyptus_Glaucescens Eucalyptus_Neglecta Eucalyptus_Urnigera Fagus_Sylvatica Ginkgo_Biloba
    Ilex_Aquifolium Ilex_Cornuta Liquidambar_Styraciflua Liriodendron_Tulipifera Lithocarpus_Cleistocarpus
    Lithocarpus_Edulis Magnolia_Heptapeta Magnolia_Salicifolia Morus_Nigra Olea_Europaea Phildelphus
    Populus_Adenopoda Populus_Grandidentata Populus_Nigra Prunus_Avium Prunus_X_Shmittii Pterocarya_Stenoptera
    Quercus_Afares Quercus_Agrifolia Quercus_Alnifolia Quercus_Brantii Quercus_Canariensis Quercus_Castaneifolia
    Quercus_Cerris Quercus_Chrysolepis Quercus_Coccifera Quercus_Coccinea Quercus_Crassifolia Quercus_Crassipes
    Quercus_Dolicholepis Quercus_Ellipsoidalis Quercus_Greggii Quercus_Hartwissiana Quercus_Ilex Quercus_Imbricaria
    Quercus_Infectoria_sub Quercus_Kewensis Quercus_Nigra Quercus_Palustris Quercus_Phellos Quercus_Phillyraeoides
    Quercus_Pontica Quercus_Pubescens Quercus_Pyrenaica Quercus_Rhysophylla Quercus_Rubra Quercus_Semecarpifolia
    Quercus_Shumardii Quercus_Suber Quercus_Texana Quercus_Trojana Quercus_Variabilis Quercus_Vulcanica
    Quercus_x_Hispanica Quercus_x_Turneri Rhododendron_x_Russellianum Salix_Fragilis Salix_Intergra Sorbus_Aria
    Tilia_Oliveri Tilia_Platyphyllos Tilia_Tomentosa Ulmus_Bergmanniana Viburnum_Tinus Viburnum_x_Rhytidophylloides
    Zelkova_Serrata
    """.split()  # noqa: SIM905 - a line for each of 99 names
)


def write(folder: Path, *, species: int = len(SPECIES), per_class: int = 10, queries: int = 6, seed: int = 0) -> None:
    """Writes the three files.

    Args:
      species: how many of SPECIES there are, from the first.
      per_class: leaves of each species in train.csv.
      queries: leaves of each species in test.csv, which does not say their species.
    """
    rng = np.random.default_rng(seed)
    names = np.array(SPECIES[:species], object)
    texture, margin = (_histograms(rng, names) for _ in range(2))
    outlines = rng.normal(0, 0.1, (species, _HARMONICS, 2))

    leaves = rng.permutation(np.repeat(np.arange(species), per_class + queries))
    columns = {
        "margin": _counted(rng, margin[leaves]),
        "shape": _contours(rng, outlines[leaves]),
        "texture": _counted(rng, texture[leaves]),
    }
    table: Table = {"id": np.arange(1, len(leaves) + 1), "species": names[leaves]}
    table |= {f"{kind}{i + 1}": values[:, i] for kind, values in columns.items() for i in range(BINS)}

    # The ids of the two files are mixed, as in Kaggle's.
    place = np.empty(len(leaves), int)
    by_species = np.argsort(leaves, kind="stable")
    place[by_species] = np.tile(np.arange(per_class + queries), species)
    asked = place >= per_class
    write_csv(folder / "train.csv", {name: column[~asked] for name, column in table.items()})
    write_csv(folder / "test.csv", {name: column[asked] for name, column in table.items() if name != "species"})
    uniform = np.full(asked.sum(), 1 / species)
    write_csv(folder / "sample_submission.csv", {"id": table["id"][asked]} | dict.fromkeys(names, uniform))


_HARMONICS = 8


def _histograms(rng: np.random.Generator, names: np.ndarray) -> np.ndarray:
    """The typical histogram of each species, (species, 64), rows that sum to 1."""
    genera, genus = np.unique([name.partition("_")[0] for name in names], return_inverse=True)
    of_genus = rng.dirichlet(np.full(BINS, 0.3), len(genera))
    own = rng.dirichlet(np.full(BINS, 0.3), len(names))
    typical = 0.5 * of_genus[genus] + 0.5 * own
    place = np.arange(len(names)) - np.searchsorted(genus, genus)  # within the genus
    twins = np.flatnonzero(place % 2 == 1)
    typical[twins] = typical[twins - 1]
    return typical


def _counted(rng: np.random.Generator, typical: np.ndarray) -> np.ndarray:
    """The histogram of each leaf, in units of 1/512 to six decimals as in Kaggle's files."""
    own = rng.standard_gamma(12 * typical) + 1e-12
    return np.round(rng.multinomial(512, own / own.sum(axis=1, keepdims=True)) / 512, 6)


def _contours(rng: np.random.Generator, outlines: np.ndarray) -> np.ndarray:
    """The distance of 64 points of the outline from the centre, about 0.0005."""
    angles = np.linspace(0, 2 * np.pi, BINS, endpoint=False)
    waves = np.stack([wave(np.outer(np.arange(1, _HARMONICS + 1), angles)) for wave in (np.cos, np.sin)], axis=1)
    own = outlines + rng.normal(0, 0.08, outlines.shape)
    size = 5e-4 * np.exp(rng.normal(0, 0.15, (len(outlines), 1)))
    return np.round(np.abs(size * (1 + np.einsum("lhw,hwb->lb", own, waves))), 12)
