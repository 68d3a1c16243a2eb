"""Verified checkpoints of a training state, on top of Orbax.

Orbax writes and reads the arrays (asynchronously, atomically, with any sharding), one directory per step. It does not
notice a flipped bit, so each checkpoint also holds a record with a hash of every leaf, and the hashes are compared when
the checkpoint is read: a restored state equals the saved state bit for bit.
"""

from jaxcls.checkpoints.directory import LOCK_FILE
from jaxcls.checkpoints.manager import CheckpointError, CheckpointManager, Quarantined, Restored

__all__ = ["LOCK_FILE", "CheckpointError", "CheckpointManager", "Quarantined", "Restored"]
