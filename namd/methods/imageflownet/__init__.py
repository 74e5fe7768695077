"""ImageFlowNet with latent SDEs (Liu et al. 2025, arXiv 2406.14794)."""
