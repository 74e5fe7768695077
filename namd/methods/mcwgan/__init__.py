"""McWGAN: a U-Net against a Wasserstein critic (Wang et al. 2024, Cancers 16(12):2229)."""
