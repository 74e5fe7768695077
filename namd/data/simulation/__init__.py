"""Follow-ups of known truth: records, labels, growth and signs drawn by a stated law."""
