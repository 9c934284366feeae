"""Replays golden data of the published PyTorch networks: `python -m tests.parity --goldens DIR [--only NAME]`.

A golden directory holds `NAME.npz` files with outputs, manifests that say how weights are rebuilt from a seed, a check
of that recipe, and a README whose tables give each array's spread between a float32 and a float64 run of the reference.
"""
