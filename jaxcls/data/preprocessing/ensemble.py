"""Preprocessing for an ensemble: one input as the preprocessor of each member encodes it.

Members of one fold have the same preprocessor; those of different folds have preprocessors of the same type that were
fitted on different rows.
"""

import dataclasses
import functools
import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from jaxcls._utils import schemas
from jaxcls._utils.errors import InputError
from jaxcls.data import preprocessing
from jaxcls.data.batching import Buckets, Size
from jaxcls.data.preprocessing import Preprocessor
from jaxcls.data.preprocessing.images import ImagePreprocessor

PyTree = Any


@dataclasses.dataclass(frozen=True)
class EnsemblePreprocessor:
    """The distinct preprocessors of an ensemble's members.

    The compact arrays are those of the only encoder, or a dict of those of each encoder, "0", "1", and so on, where the
    preprocessors encode inputs differently. Statistics that the compiled step applies do not make an encoder.

    Attributes:
      preprocessors: all different, and of one type.
    """

    preprocessors: tuple[Preprocessor, ...]

    @functools.cached_property
    def encoder_of(self) -> tuple[int, ...]:
        """The index of the encoder of each preprocessor."""
        encodings = [*map(_encoding, self.preprocessors)]
        distinct = [*dict.fromkeys(encodings)]
        return tuple(map(distinct.index, encodings))

    @functools.cached_property
    def encoders(self) -> list[Preprocessor]:
        """The preprocessors that encode inputs differently, the first of each."""
        return [self.preprocessors[self.encoder_of.index(encoder)] for encoder in range(max(self.encoder_of) + 1)]

    def arrays(self, compact: PyTree) -> list[PyTree]:
        """Returns the compact arrays of each encoder."""
        return [compact] if len(self.encoders) == 1 else [compact[str(i)] for i in range(len(self.encoders))]

    def transform(self, inputs: PyTree) -> PyTree:
        return _joined([encoder.transform(inputs) for encoder in self.encoders])

    def shapes(self, count: Any) -> PyTree:
        return _joined([encoder.shapes(count) for encoder in self.encoders])

    def normalize(self, compact: PyTree) -> PyTree:
        """Returns the compact arrays unchanged: each member normalizes its own."""
        return compact

    @property
    def buckets(self) -> Buckets | None:
        """The widths of texts of all encoders; an example is as long as the longest of its encodings."""
        each = [encoder.buckets for encoder in self.encoders]
        buckets = [one for one in each if one is not None]
        if len(buckets) < 2:
            return each[0]

        def extents(compact: PyTree) -> Any:
            return functools.reduce(np.maximum, [one.extents(compact[str(i)]) for i, one in enumerate(buckets)])

        def cut(compact: PyTree, size: Size) -> PyTree:
            return {str(i): one.cut(compact[str(i)], size) for i, one in enumerate(buckets)}

        return Buckets(tuple(sorted({size for one in buckets for size in one.sizes})), extents, cut)

    @property
    def model_arguments(self) -> Mapping[str, Any]:
        """Those of the first preprocessor."""
        return self.preprocessors[0].model_arguments

    @property
    def program(self) -> Hashable:
        return "ensemble", self.encoder_of, tuple(one.program for one in self.preprocessors)

    def as_record(self) -> dict[str, Any]:
        return {"type": "ensemble", "preprocessors": [one.as_record() for one in self.preprocessors]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        schemas.check(record, {"preprocessors": [{"type": str, str: schemas.ANYTHING}]}, "the preprocessor")
        types = {one["type"] for one in record["preprocessors"]}
        if len(types) != 1 or "ensemble" in types or "detection" in types:
            raise InputError(f"the preprocessor is damaged: an ensemble of the types {', '.join(sorted(types))}.")
        return cls(tuple(map(preprocessing.from_record, record["preprocessors"])))


def first(preprocessor: Any) -> Any:
    """Returns the first preprocessor of an ensemble, and any other preprocessor, or None, itself."""
    return preprocessor.preprocessors[0] if isinstance(preprocessor, EnsemblePreprocessor) else preprocessor


def encoder(preprocessor: Any) -> Any:
    """Returns what encodes inputs in place of a preprocessor: one of an ensemble's, if all encode them alike."""
    if not isinstance(preprocessor, EnsemblePreprocessor):
        return preprocessor
    encoders = preprocessor.encoders
    return encoders[0] if len(encoders) == 1 else EnsemblePreprocessor(tuple(encoders))


def _encoding(preprocessor: Preprocessor) -> str:
    """Returns what decides the result of ``transform``."""
    if isinstance(preprocessor, ImagePreprocessor):
        return str(preprocessor.shape)
    return json.dumps(preprocessor.as_record(), sort_keys=True)


def _joined(each: Sequence[PyTree]) -> PyTree:
    return each[0] if len(each) == 1 else {str(number): one for number, one in enumerate(each)}
