"""Getting over what happens to processes: signals, hangs, lost peers, and starting again."""
