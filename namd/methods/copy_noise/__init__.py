"""The baseline with noise of the pairs' own spectrum: a row that the paper lacks."""
