"""Damages valid content as accidents and attackers do. All random draws come from a `random.Random`: hypothesis's, or
one seeded by the number of a case."""

import contextlib
import copy
import math
import signal

# Counts, lengths and offsets that parsers stumble over.
_SIZES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1]
_WORDS = [
    b"\0", b"\xff", b'"', b"'", b",", b"\n", b"\r", b"=", b"[" * 2000, b"{", b"-" * 3000, b"9" * 5000, b"PK\3\4",
    b"\x1f\x8b", b"nan", b"1e999", b"../", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"NaN", b"null", b"\x1b[2J",
]  # fmt: skip
ODD = [
    None, True, False, -1, 0, 1, 2, 3, 1 << 31, 1 << 63, 10**400, -(10**20), 0.5, -0.0, 1e308, -1e308, 1e300, 5e-324,
    1e-310, math.nan, math.inf, -math.inf, "", "\0", "\ud800", "<script>alert(1)</script>", "=1+1", "\x1b[2J",
    "../../x", "/etc/passwd", "a" * 5000, "0", "\u202e", [], {}, [[]], [None], [0], [1.5, "x"], {"a": 1}, [[0, 0]] * 3,
]  # fmt: skip


def damaged(rng, content):
    """The content with one to four bytes, numbers or spans changed, removed, repeated or moved."""
    result = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        # Half of the changes hit the beginning, where headers are.
        most = len(result) if rng.random() < 0.5 else min(len(result), 64)
        index, length = rng.randint(0, max(most - 1, 0)), rng.choice([1, 2, 4, 16, 100])
        match rng.randint(0, 9):
            case 0 if result:
                result[index] ^= 1 << rng.randint(0, 7)
            case 1 if result:
                result[index] = rng.randint(0, 255)
            case 2:
                width, order = rng.choice([2, 4, 8]), rng.choice(["little", "big"])
                result[index : index + width] = (rng.choice(_SIZES) & ((1 << 8 * width) - 1)).to_bytes(width, order)
            case 3:
                del result[index : index + length]
            case 4:
                result[index:index] = result[index : index + length]
            case 5:
                result[index:index] = rng.choice(_WORDS)
            case 6:
                result[index : index + length] = bytes(len(result[index : index + length]))
            case 7:
                del result[index:]
            case 8:
                piece = result[index : index + length]
                del result[index : index + length]
                other = rng.randint(0, len(result))
                result[other:other] = piece
            case _:
                result += result[: rng.randint(0, 200)]
    return bytes(result)


def edited(rng, record):
    """A JSON record with one to three values replaced, removed, repeated or renamed."""
    box = [copy.deepcopy(record)]
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice([*_positions(box)])
        match rng.randint(0, 5):
            case 0 if container is not box:
                del container[key]
            case 1 if isinstance(container, list) and container is not box:
                container.insert(key, copy.deepcopy(container[key]))
            case 2 if isinstance(container, dict):
                container[rng.choice(["", "x", "\ud800", "<b>", "0", "\x1b[2J"])] = container.pop(key)
            case 3 if type(container[key]) in (int, float):
                container[key] *= rng.choice([-1, 0, 2, 1000, 10**12])
            case 4:
                nested = copy.deepcopy(rng.choice(ODD))
                for _ in range(rng.choice([1, 3, 50])):
                    nested = [nested]
                container[key] = nested
            case _:
                container[key] = copy.deepcopy(rng.choice(ODD))
    return box[0]


def _positions(container):
    keys = range(len(container)) if isinstance(container, list) else [*container]
    for key in keys:
        yield container, key
        if isinstance(container[key], list | dict):
            yield from _positions(container[key])


@contextlib.contextmanager
def bounded(seconds):
    """Fails if the block takes longer, and interrupts it."""

    def hang(number, frame):
        raise AssertionError(f"not done after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
