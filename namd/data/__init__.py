"""Cohorts: schema, sources, splits, report text, intensity, follow-up simulation."""
