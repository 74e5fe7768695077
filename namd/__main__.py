"""`python -m namd`: the command line, for where its script is not on the path."""

import sys

from namd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
