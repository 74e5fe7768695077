"""`python -m namd`: the command line, for where its script is not on the path."""

import sys


def main() -> int:
    """Run one command, and import nothing from the current folder, which `-m` puts first."""
    from namd.config.search_path import leave_current_folder

    leave_current_folder()
    from namd.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
