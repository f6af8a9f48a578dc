"""`python -m rbpp …` is `rbpp …`."""

import sys

from rbpp.command import main

if __name__ == "__main__":
    sys.exit(main())
