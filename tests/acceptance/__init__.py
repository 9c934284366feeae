"""Acceptance of the fit of heads to landmarks: what it reaches on truth and on real clips, what it would refuse."""
