"""Where cohorts come from: one file a source, each ending in a `Cohort`."""
