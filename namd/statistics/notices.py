"""The notices beside every number and picture."""

RESEARCH_ONLY = "Research use only: not for clinical decisions."
SIMULATED = (
    "SIMULATED: labels and follow-ups of this cohort were drawn by a program. These numbers say "
    "nothing about patients."
)
SIMULATED_COLUMNS = "SIMULATED: {columns}{law}; numbers from them say nothing about patients."
SIMULATED_RUN = (
    "SIMULATED: this run learned from follow-ups and labels that a program drew; its draws and "
    "probabilities say nothing about patients"
)


def simulated_notice(law: str | None) -> str:
    """Return `SIMULATED` with the law that the cohort was drawn under, if it is known."""
    if law is None:
        return SIMULATED
    return SIMULATED.replace("by a program.", f"by a program under the law {law}.")
