"""Data sets, and their way to the device. The names below are imported on first use."""

from typing import TYPE_CHECKING

from jaxcls._utils.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from jaxcls.data import augmentation, splits
    from jaxcls.data.adapters import Counted, as_examples
    from jaxcls.data.batching import Examples
    from jaxcls.data.dataset import Dataset, Split

__all__ = ["Counted", "Dataset", "Examples", "Split", "as_examples", "augmentation", "splits"]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {"adapters": ["Counted", "as_examples"], "batching": ["Examples"], "dataset": ["Dataset", "Split"]},
    ["augmentation", "splits"],
)
