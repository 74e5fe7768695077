"""The judge's scores, image metrics and the score table."""
