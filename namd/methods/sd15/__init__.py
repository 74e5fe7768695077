"""Stable Diffusion 1.5, fine-tuned on pairs (Rombach et al. 2022)."""
