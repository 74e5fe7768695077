"""The training loop, its state and its checkpoints. No model is defined here."""
