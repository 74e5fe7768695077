"""ImageFlowNet with latent SDEs (Liu et al. 2025)."""
