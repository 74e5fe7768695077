"""The notices beside every number and picture."""

RESEARCH_ONLY = "Research use only: not for clinical decisions."
SIMULATED = (
    "SIMULATED: labels and follow-ups of this cohort were drawn by a program. These numbers say "
    "nothing about patients."
)
SIMULATED_COLUMNS = "SIMULATED: {columns}; numbers from them say nothing about patients."
SIMULATED_RUN = (
    "SIMULATED: this run learned from follow-ups and labels that a program drew; its draws and "
    "probabilities say nothing about patients"
)
