"""Strict parsing, overrides, fingerprints, seeds, presets."""
