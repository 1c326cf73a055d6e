"""Experiments on synthetic data and editing: which models are trained on what, and what came out.

`presets` says how large, `designs` which models an experiment trains, `nodes` how each corpus and model is made,
`workers` makes them, a process a core, `tables` compares them and `plan` says before it what they cost and can show.
"""
