"""What methods share: crops, autoencoder, judge, draws, scores, rows, and their settings."""
