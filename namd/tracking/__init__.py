"""Trackers; the only importer of wandb."""
