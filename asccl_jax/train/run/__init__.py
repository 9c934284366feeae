"""What a run tells of itself while it trains and at its end: scalars, speed, waiting, profiles."""
