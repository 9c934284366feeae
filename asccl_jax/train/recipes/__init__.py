"""Recipes: from the words of a command and a config to all that a run is made of."""
