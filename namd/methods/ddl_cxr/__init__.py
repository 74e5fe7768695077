"""DDL-CXR: a hybrid-conditioned latent diffusion model (Yao et al. 2024)."""
