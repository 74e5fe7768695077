"""Two optimisers: a generator of follow-ups and a critic with two steps to each of its own."""
