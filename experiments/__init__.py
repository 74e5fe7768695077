"""Studies shipped with namd, and benchmarks of measured ratios."""
