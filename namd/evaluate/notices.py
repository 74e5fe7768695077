"""Lines that stand beside a run's numbers wherever they are shown; nothing is imported here."""

SIMULATED = "SIMULATED follow-ups and labels: these numbers say nothing about patients."
RESEARCH_ONLY = "Research use only: not for clinical decisions."
