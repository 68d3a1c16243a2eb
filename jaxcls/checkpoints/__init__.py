"""Exact, verified checkpoints of a training state: Orbax behind one small room.

Orbax writes and reads the arrays (asynchronously, atomically, on any sharding), one directory a step, named
by the step. It does not notice a flipped bit, so a record with a hash of every leaf is stored beside the
arrays and compared when they are read: a state that is restored is, bit for bit, the state that was saved.
"""

from jaxcls.checkpoints.checkpoints import CheckpointError, Checkpoints, Restored, SetAside
from jaxcls.checkpoints.directory import LOCK_FILE

__all__ = ["LOCK_FILE", "CheckpointError", "Checkpoints", "Restored", "SetAside"]
