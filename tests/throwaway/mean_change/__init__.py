"""Deterministic: the baseline plus the mean change of the training pairs."""
