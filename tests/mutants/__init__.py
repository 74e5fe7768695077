"""Planted faults: whether the fast tests would notice a plausible mistake in what they test."""
