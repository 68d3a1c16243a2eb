"""Fuzzes a reader with atheris, guided by code coverage, starting from valid content.

python tests/hostile/guided.py IDX FOLDER -runs=10000
"""

import contextlib
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
with atheris.instrument_imports(
    include=["jaxcls.data", "jaxcls.checkpoints", "jaxcls._utils.schemas"], enable_loader_override=False
):
    pass

from readers import ENDS, READERS, CheckpointRecord


def main():
    reader = READERS[sys.argv[1]](sys.argv[2])
    corpus = Path(sys.argv[2]) / "corpus"
    corpus.mkdir()
    contents = [reader.text.encode()] if isinstance(reader, CheckpointRecord) else reader.contents
    for number, content in enumerate(contents):
        (corpus / str(number)).write_bytes(content)

    def read(content):
        with contextlib.suppress(*ENDS):
            if isinstance(reader, CheckpointRecord):
                reader.unpack(content.decode("latin-1"))
            else:
                reader.path.write_bytes(content)
                reader.open(reader.path)

    atheris.Setup([sys.argv[0], *sys.argv[3:], "-max_len=8192", "-len_control=0", "-timeout=30", str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
