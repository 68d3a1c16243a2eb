"""python -m jaxcls: the same program as ``jaxcls``."""

import sys

from jaxcls.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="python -m jaxcls"))
