"""The compared methods, one file per row of the paper's Table 1."""
