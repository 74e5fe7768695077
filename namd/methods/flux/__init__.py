"""Flux, a rectified-flow transformer on latents (Labs 2024)."""
