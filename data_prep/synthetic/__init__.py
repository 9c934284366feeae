"""Synthetic talking heads: people who speak sentences in seven emotions, with every factor known exactly.

From the mesh up: `skin_surface` shapes the skin, `head` adds what it does not cover, says how heads differ and puts
all of it into the FLAME file format, `action_units` moves it. `people` and `paint` make persons of it,
`person_renderer` draws them with the kernels of `raster`, `speech` makes them talk, `synthetic_clips`, `comparisons`
and `tracks` write data sets.
"""
