"""Writes the sample of the sentiment task from the source archive of vaderSentiment 2.5.

    pip download --no-deps --no-binary :all: vaderSentiment==2.5
    python experiments/make_sentiment_sample.py vaderSentiment-2.5.tar.gz

Expected: the files in jaxcls/data/samples/sentiment as they were committed, byte for byte.
"""

import argparse
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import jaxcls
from jaxcls.data.formats.tables import write_csv

FOLDER = Path(jaxcls.__file__).parent / "data" / "samples" / "sentiment"
SHA256 = "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
INNER = "vaderSentiment-2.5/additional_resources/hutto_ICWSM_2014.tar.gz"
SENTENCES = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    content = parser.parse_args().archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise SystemExit(f"this is not the source archive of vaderSentiment 2.5, whose SHA-256 is {SHA256}")
    lines = member(member(content, INNER), SENTENCES).decode("utf-8").split("\r\n")
    _, ratings, texts = zip(*(line.split("\t") for line in lines if line), strict=True)
    path = FOLDER / "sentences.csv.gz"
    write_csv(path, {"text": texts, "rating": ratings})
    digest = hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    (FOLDER / "SHA256SUMS").write_text(f"{digest}  sentences.csv\n", encoding="utf-8")


def member(archive: bytes, name: str) -> bytes:
    """The content of one file in a gzipped tar archive."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as unpacked:
        file = unpacked.extractfile(name)
        assert file is not None, f"{name} is not a file"
        return file.read()


if __name__ == "__main__":
    main()
