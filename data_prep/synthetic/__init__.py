"""Synthetic talking heads: people who speak sentences in seven emotions, with every factor known exactly.

From the mesh up: `skin_surface` and `head_parts` shape one head, `identity_basis` and `action_units` say how it varies,
`head` puts them into the FLAME file format. `people`, `hair` and `texture` make persons of it, `renderer` draws them,
`speech` and `voice` make them talk, `clips` and `comparisons` write data sets.
"""
