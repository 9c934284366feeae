"""PyTorch state dicts, as plain NumPy arrays, to Flax variables and back; torch itself is never needed here."""
