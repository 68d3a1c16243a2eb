"""python -m jaxcls.train: the same command as ``jaxcls train``."""

import sys

from jaxcls.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
