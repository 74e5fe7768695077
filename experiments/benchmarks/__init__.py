"""Measured ratios, never asserted in a timed test."""
