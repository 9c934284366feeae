"""Checkpoints as they lie on the disk: which is the newest, and whether two hold the same arrays."""

from asccl_jax.train.checkpoints.checkpoint_folder import STATE, newest_on_disk
from asccl_jax.train.checkpoints.checkpoint_listing import read_arrays


def newest_step(directory):
    """Step of the newest complete checkpoint; 0 where there is none, as a run without one begins there."""
    return newest_on_disk(directory) or 0


def differing_arrays(first, second):
    """Names of the arrays in which two checkpoints differ in any bit, or that one of them lacks."""
    ours, theirs = (read_arrays(folder.resolve() / STATE) for folder in (first, second))
    return sorted(
        name
        for name in ours.keys() | theirs.keys()
        if name not in ours or name not in theirs or ours[name].tobytes() != theirs[name].tobytes()
    )
