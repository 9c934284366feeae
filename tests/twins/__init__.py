"""Models of the networks in PyTorch: what tests compare with and bench runs beside."""
