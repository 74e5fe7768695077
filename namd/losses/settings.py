"""What the losses ask of a batch, as values. Torch-free; the losses themselves are beside it."""

MINIMUM_CASES = 3
"""Of L_align: a row of its distributions needs at least two neighbours."""
