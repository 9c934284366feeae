"""Acceptance of the fit of heads to landmarks: what it reaches on exact truth and on real clips, and what it would refuse."""
