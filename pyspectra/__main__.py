"""``python -m pyspectra`` is the command ``pyspectra``."""

import sys

from pyspectra.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
