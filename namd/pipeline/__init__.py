"""Runs: configuration, stage graph, artifact store, launcher."""
