"""How far the losses of another number of processes or devices may be off: sums of a batch in another order.

Training scalars differ by some 1e-5 after a step; scores under the running statistics of a few steps amplify that, and
a share of hits moves by whole hits.
"""

import numpy as np


def allowed(name):
    """Relative and absolute tolerance of a logged scalar."""
    return 0.02 if "top1" in name else 5e-3 if name.startswith("eval/") else 1e-3


def differing_scalars(found, expected):
    """One phrase for each scalar of two lists of logged lines, in order, that is further off than allowed."""
    phrases = []
    for ours, theirs in zip(found, expected, strict=True):
        if ours.keys() != theirs.keys():
            phrases.append(f"step {theirs['step']} logs {sorted(ours.keys() ^ theirs.keys())} on one side only")
            continue
        phrases += [
            f"{name} of step {theirs['step']} is {ours[name]}, expected {value}"
            for name, value in theirs.items()
            if not np.isclose(ours[name], value, rtol=allowed(name), atol=allowed(name))
        ]
    return phrases
