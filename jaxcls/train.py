"""python -m jaxcls.train: the same command as ``jaxcls train``."""

import sys

from jaxcls.cli.main import run

if __name__ == "__main__":
    sys.exit(run("train", *sys.argv[1:], program="python -m jaxcls.train"))
