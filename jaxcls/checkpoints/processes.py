"""Agreement between the processes that train together."""

import jax
import numpy as np


def is_first_process() -> bool:
    """Whether this process is the one that renames and deletes, of those that train together."""
    return jax.process_index() == 0


def in_every_process(ok: bool) -> bool:
    """Whether all processes that train together say so; none goes on before the last has said it."""
    if jax.process_count() == 1:
        return ok
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.array(ok))))
