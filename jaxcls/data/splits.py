"""Splits of examples into training and validation rows: one by a fraction, or several, the folds.

A split is ``(examples, fraction, *, seed) -> (train_rows, validation_rows)``: two sorted int64 arrays that together
hold each of 0..N-1 once. `fraction`, between 0 and 1, is that of the validation rows; `seed` is a non-negative integer.
The same examples and seed give the same rows with every version of NumPy.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jaxcls._utils.errors import InputError
from jaxcls.data.dataset import Split

PyTree = Any
Splitter = Callable[..., tuple[np.ndarray, np.ndarray]]


def stratified(examples: Split, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits every class in proportion; for a multilabel problem every row by its rarest label, for several outputs
    every combination of their classes.

    Rows without a label form another class. Each class gets fraction * its rows, and the rows lost to rounding go
    to the largest remainders (Hamilton's method of apportionment). A class of two or more rows has at least one on each
    side; a class of one row trains.

    Raises:
      InputError: the labels have another shape, the fraction or seed is out of range, or no class has two rows.

    >>> examples = Split(np.zeros((8, 3)), np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    >>> train_rows, validation_rows = stratified(examples, 0.25, seed=0)
    >>> examples.labels[validation_rows]
    array([0, 1])
    """
    _check(fraction, seed)
    _, classes, counts = _classes(examples.labels)
    if not np.any(counts >= 2):
        raise InputError(f"{len(classes)} rows are too few to split: no class has two rows, one for each side.")
    by_class = np.lexsort((_sort_keys(len(classes), seed), classes))
    index_in_class = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    validates = index_in_class < np.repeat(_quotas(counts, fraction), counts)
    return np.sort(by_class[~validates]), np.sort(by_class[validates])


def grouped(examples: Split, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits whole groups, so that every class is split as nearly in proportion as the groups allow.

    Classes are as in :func:`stratified`. From the rarest class to the most common, its groups are visited in random
    order, and one validates if that brings the class nearer to fraction * its rows. A class in two or more groups is on
    both sides, unless rarer classes have taken all its groups; a class in one group trains. Source: Sechidis et al.
    (2011), "On the stratification of multi-label data", with groups in place of rows.

    Raises:
      InputError: as for :func:`stratified`, or there are no groups, or too few.

    >>> labels, groups = np.array([0, 0, 0, 0, 1, 1]), np.array(["a", "a", "b", "b", "c", "d"])
    >>> train_rows, validation_rows = grouped(Split(np.zeros((6, 3)), labels, groups=groups), 0.5, seed=0)
    >>> groups[validation_rows]
    array(['b', 'b', 'd'], dtype='<U1')
    """
    _check(fraction, seed)
    group_names, groups = _groups(examples)
    _, classes, class_rows = _classes(examples.labels)
    num_groups = len(group_names)
    keys = _sort_keys(num_groups, seed)
    validates, assigned = np.zeros((2, num_groups), bool)
    for label in np.argsort(class_rows, kind="stable"):
        holders, sizes = np.unique(groups[classes == label], return_counts=True)
        shuffled = np.argsort(keys[holders], kind="stable")
        holders, sizes = holders[shuffled], sizes[shuffled]
        wanted = fraction * class_rows[label] - sizes[validates[holders]].sum()
        free = np.flatnonzero(~assigned[holders])
        for entry in free:
            if len(holders) > 1 and sizes[entry] / 2 < wanted:
                validates[holders[entry]] = True
                wanted -= sizes[entry]
        assigned[holders] = True
        if len(free) and len(holders) > 1 and len(set(validates[holders])) == 1:
            smallest = holders[free[sizes[free].argmin()]]
            validates[smallest] = not validates[smallest]
    if not validates.any():
        reason = "no class is in two groups that can be separated, one for each side"
        raise InputError(f"{num_groups} groups are too few to split: {reason}.")
    return np.flatnonzero(~validates[groups]), np.flatnonzero(validates[groups])


def random(examples: Split, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Splits rows at random whatever their labels, for examples without a class, as in detection.

    Raises:
      InputError: the fraction or seed is out of range, or there are fewer than two rows.

    >>> train_rows, validation_rows = random(Split(np.zeros((5, 3)), np.zeros(5)), 0.4, seed=0)
    >>> len(train_rows), len(validation_rows)
    (3, 2)
    """
    count, num_validation = _counts(examples, fraction, seed)
    order = np.argsort(_sort_keys(count, seed), kind="stable")
    return np.sort(order[num_validation:]), np.sort(order[:num_validation])


def chronological(examples: Split, fraction: float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Validates on the last rows of examples in order of time, as predictions are for later examples; ignores the seed.

    Raises:
      InputError: the fraction or seed is out of range, or a side has fewer than two classes.

    >>> chronological(Split(np.zeros((5, 3)), np.array([0, 1, 0, 0, 1])), 0.4, seed=0)
    (array([0, 1, 2]), array([3, 4]))
    """
    count, num_validation = _counts(examples, fraction, seed)
    earlier, later = np.split(np.arange(count, dtype=np.int64), [count - num_validation])
    for name, rows in (("first", earlier), ("last", later)):
        _check_classes(examples.labels[rows], f"of the {name} rows, by time,", "Give more rows, or another fraction.")
    return earlier, later


def _check_classes(labels: np.ndarray, which: str, advice: str) -> None:
    if len(classes := np.unique(labels)) < 2:
        needed = "training, validation and test need both classes."
        raise InputError(f"all {len(labels):,} {which} have class {classes[0]}; {needed} {advice}")


def folds(splitter: Splitter, examples: Split, count: int, *, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (train_rows, validation_rows) of each of ``count`` folds, split as by ``splitter``.

    - :func:`stratified`: the rows of every class, and all rows, are divided equally, with a difference of one at most.
    - :func:`grouped`: the groups of every class, from the rarest to the most common and of each the largest first, go
      to the fold that has the fewest rows of the class.
    - :func:`random`: all rows are divided equally.
    - :func:`chronological`: of ``count + 1`` equal blocks in order of time, each but the first validates what learns
      from all blocks before it; the seed is ignored.

    Every row, except for those of the first block by time, validates in exactly one fold, and otherwise trains.

    Raises:
      InputError: the labels have another shape, the count or seed is out of range, or there are too few rows or groups,
        in all or of a class. A label of a multilabel problem, or a combination of classes, may have fewer.

    >>> examples = Split(np.zeros((6, 3)), np.array([0, 1, 0, 1, 0, 1]))
    >>> [validation_rows.tolist() for _, validation_rows in folds(stratified, examples, 3, seed=0)]
    [[2, 3], [0, 1], [4, 5]]
    >>> folds(chronological, examples, 2, seed=0)
    [(array([0, 1]), array([2, 3])), (array([0, 1, 2, 3]), array([4, 5]))]
    """
    if count < 2:
        raise InputError(f"the number of folds is {count}; it must be 2 or more.")
    _check_seed(seed)
    rows = examples.num_examples
    if splitter is chronological:
        _check_enough(rows, "rows", count, needed=2 * (count + 1))
        blocks = np.array_split(np.arange(rows, dtype=np.int64), count + 1)
        pairs = [(np.concatenate(blocks[:fold]), blocks[fold]) for fold in range(1, count + 1)]
        for fold, (earlier, later) in enumerate(pairs, 1):
            for name, chosen in (("training", earlier), ("validation", later)):
                _check_classes(
                    examples.labels[chosen], f"{name} rows of fold {fold}", "Give fewer folds, or more rows."
                )
        return pairs
    if splitter is grouped:
        fold_of = _fold_of_groups(examples, count, seed)
    else:
        _check_enough(rows, "rows", count)
        keys = _sort_keys(rows, seed)
        if splitter is random:
            order = np.argsort(keys, kind="stable")
        else:
            _, classes, counts = _classes(examples.labels)
            _check_enough_of_each(examples.labels, counts, "rows", count)
            order = np.lexsort((keys, classes))
        # As cards are dealt.
        fold_of = np.empty(rows, np.int64)
        fold_of[order] = np.arange(rows) % count
    return [(np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(count)]


def _fold_of_groups(examples: Split, count: int, seed: int) -> np.ndarray:
    """The fold in which each row validates, (N,), so that groups stay whole."""
    group_names, groups = _groups(examples)
    _check_enough(len(group_names), "groups", count)
    _, classes, class_rows = _classes(examples.labels)
    # Of each class, its groups and the number of its rows in them.
    by_class = [np.unique(groups[classes == label], return_counts=True) for label in range(len(class_rows))]
    _check_enough_of_each(examples.labels, np.array([len(holders) for holders, _ in by_class]), "groups", count)
    keys, group_rows = _sort_keys(len(group_names), seed), np.bincount(groups)
    fold_of, fold_rows = np.full(len(group_names), -1), np.zeros(count, np.int64)
    for label in np.argsort(class_rows, kind="stable"):
        holders, sizes = by_class[label]
        held = np.zeros(count, np.int64)
        assigned = fold_of[holders] >= 0
        np.add.at(held, fold_of[holders[assigned]], sizes[assigned])
        for entry in np.lexsort((keys[holders], -sizes)):
            if not assigned[entry]:
                group, fold = holders[entry], np.lexsort((fold_rows, held))[0]
                fold_of[group] = fold
                held[fold] += sizes[entry]
                fold_rows[fold] += group_rows[group]
    return fold_of[groups]


def _check_enough(available: int, unit: str, count: int, needed: int | None = None) -> None:
    needed = needed or count
    if available < needed:
        raise InputError(f"{available} {unit} are too few for {count} folds, which take {needed} or more.")


def _check_enough_of_each(labels: np.ndarray, available: np.ndarray, unit: str, count: int) -> None:
    """Checks that every class of one output can validate in every fold."""
    if not isinstance(labels, Mapping) and np.ndim(labels) == 1 and available.min() < count:
        fewest = int(available.argmin())
        raise InputError(
            f"class {np.unique(labels)[fewest]} is in {available[fewest]} {unit}, which are too few for {count} folds: "
            f"each validates on every class. Give at most {max(available[fewest], 2)} folds, or more {unit} of it."
        )


def _counts(examples: Split, fraction: float, seed: int) -> tuple[int, int]:
    """The number of all rows and of the validation rows."""
    _check(fraction, seed)
    count = examples.num_examples
    if count < 2:
        raise InputError(f"{count} rows are too few to split: each side needs one.")
    return count, min(max(round(count * fraction), 1), count - 1)


def _check(fraction: float, seed: int) -> None:
    if not 0 < fraction < 1:
        raise InputError(f"fraction is {fraction}; it must be above 0 and below 1.")
    _check_seed(seed)


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise InputError(f"seed is {seed}; it must be 0 or above.")


def _groups(examples: Split) -> tuple[np.ndarray, np.ndarray]:
    """The distinct groups, and the index of that of each row, (N,)."""
    if examples.groups is None:
        raise InputError("the examples have no groups; split them by class.")
    return np.unique(examples.groups, return_inverse=True)


def _classes(labels: PyTree) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct strata, the index of that of each row, (N,), and their numbers of rows."""
    return np.unique(_strata(labels), return_inverse=True, return_counts=True)


def _strata(labels: PyTree) -> np.ndarray:
    """The class of each row, (N,): of several labels the rarest, without a label the number of labels; and of several
    outputs the combination of their classes."""
    if isinstance(labels, Mapping):
        combined = np.zeros(1, np.int64)
        for one in labels.values():
            _, classes, counts = _classes(one)
            combined = np.unique(combined * len(counts) + classes, return_inverse=True)[1]
        return combined
    labels = np.asarray(labels)
    if labels.ndim == 1 and labels.dtype.kind in "iub":
        return labels
    if labels.ndim != 2 or labels.dtype.kind not in "iubf":
        raise InputError(
            f"labels have shape {labels.shape} and type {labels.dtype}; they must be integers of shape (N,), or "
            "numbers of shape (N, L), one column per label."
        )
    positive = labels >= 0.5  # False for unknown labels
    support = positive.sum(axis=0)
    rarity = np.where(positive, support, len(labels) + 1)
    none = np.full((len(labels), 1), len(labels))
    return np.hstack([rarity, none]).argmin(axis=1)


def _sort_keys(count: int, seed: int) -> np.ndarray:
    # The raw output of PCG64: NumPy guarantees this stream forever (NEP 19); Generator.permutation and
    # Generator.shuffle may change with any version.
    return np.random.PCG64(seed).random_raw(count)


def _quotas(counts: np.ndarray, fraction: float) -> np.ndarray:
    """The number of validation rows of each class."""
    divisible = counts >= 2
    ideal = np.where(divisible, counts * fraction, 0.0)
    quotas = np.where(divisible, np.maximum(np.floor(ideal), 1), 0).astype(np.int64)
    remaining = max(0, round(ideal.sum()) - quotas.sum())
    largest_remainders = np.argsort(quotas - ideal, kind="stable")[:remaining]
    quotas[largest_remainders] += 1
    return np.minimum(quotas, counts - 1)


ROLES = {"train": "train(?:ing)?|trn", "validation": "val(?:id(?:ation)?)?|dev", "test": "test(?:ing)?|tst"}
_ROLE = re.compile(
    "|".join(rf"(?P<{role}>(?:{words})(?:set|data|images)?)" for role, words in ROLES.items()), re.IGNORECASE
)
# Words that may be next to it, as digits may.
_FILLERS = {"set", "data", "dataset", "images", "image", "imgs", "split", "annotations", "labels", "instances", "coco"}


def role(name: str) -> str | None:
    """Returns the split that a folder or a file is named after: 'train', 'validation', 'test' or None.

    >>> [role(name) for name in ("Training", "valid", "TestSet", "val2017", "train_station")]
    ['train', 'validation', 'test', 'validation', None]
    """
    return roles([name]).get(name)


def roles(names: Iterable[str]) -> dict[str, str]:
    """Returns the split of each name that is one of a split: by itself, or as one of several that differ in it alone.

    >>> roles(["seg_train", "seg_test", "train_station", "airport", "Test"])
    {'seg_train': 'train', 'seg_test': 'test', 'Test': 'test'}
    """
    named = {name: one for name in names if (one := _role(name))}
    return {name: one for name, (one, left) in named.items()
            if not left or {other for other, rest in named.values() if rest == left} > {"train"}}  # fmt: skip


def _role(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The split that one word of a name says, and the other words."""
    words = re.findall(r"[A-Z]?[^\W\dA-Z_]+|[A-Z]+", name)
    matches = {index: match for index, word in enumerate(words) if (match := _ROLE.fullmatch(word))}
    if len(matches) != 1:
        return None
    ((position, match),) = matches.items()
    left = (word.casefold() for index, word in enumerate(words) if index != position)
    return str(match.lastgroup), tuple(word for word in left if word not in _FILLERS)
