"""Stochastic: the baseline plus the change of another patient, drawn at random."""
