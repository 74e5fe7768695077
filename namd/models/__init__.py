"""Networks. They know nothing of losses, noise schedules or files of cases."""
