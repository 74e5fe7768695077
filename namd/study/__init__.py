"""Studies: spec, search space, ablation designs, plan and the ask-and-tell engine. No Ray."""
