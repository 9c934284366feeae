"""Geometry of heads: FLAME, camera, a differentiable rasteriser, and the shape images that the metric compares."""
