"""NAMD (arXiv 2603.15932): aligned VAE, an LLM with soft prompts, latent diffusion."""
