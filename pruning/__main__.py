"""`python -m pruning`: the workbench from a shell."""

import sys

from pruning.cli import main

if __name__ == "__main__":
    sys.exit(main())
