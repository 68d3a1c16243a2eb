"""Text preprocessing: tokenizer training, encoding, bucket widths and records."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from jaxcls._utils.errors import InputError
from jaxcls.data import preprocessing
from jaxcls.data.preprocessing import texts

WORDS = np.array(["the", "film", "was", "good", "bad", "splendid", "dreadful", "naïve", "映画", "and", "so"], object)


def drawn(count, seed=0):
    random = np.random.default_rng(seed)
    return np.array([" ".join(random.choice(WORDS, random.integers(1, 60))) for _ in range(count)], object)


def strings(*values):
    return np.array(values, object)


FITTED = texts.fit(drawn(200), vocabulary_size=320, max_length=48)


def test_tokens_are_int32_and_padded_at_the_end_only():
    tokens = FITTED.transform(drawn(50, seed=1))
    assert tokens.dtype == np.int32
    assert tokens.shape == (50, FITTED.widths[-1])
    lengths = (tokens != 0).sum(axis=1)
    np.testing.assert_array_equal(tokens != 0, np.arange(tokens.shape[1])[None] < lengths[:, None])
    assert tokens.max() < FITTED.model_arguments["vocabulary_size"] <= 320
    assert FITTED.model_arguments["max_length"] == FITTED.widths[-1] <= 48


@pytest.mark.parametrize(
    "variant",
    ["Good<br /><br />film", "good<BR>film", "  good \t\n film ", "good\u00a0film", "\uff47\uff4f\uff4f\uff44 film"],
)
def test_line_breaks_whitespace_and_case_are_ignored(variant):
    np.testing.assert_array_equal(FITTED.transform(strings(variant)), FITTED.transform(strings("good film")))


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_has_tokens_even_one_with_the_name_of_the_padding(text):
    tokens = FITTED.transform(strings(text, text + " [PAD] x"))
    assert tokens[1].any()
    np.testing.assert_array_equal(tokens == 0, np.cumsum(tokens == 0, axis=1) > 0)


def bert():
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##a": 4, "b": 5}))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    return tokenizer.to_str()


PIECES = ["a", "A", "b", "<br", "/>", "<BR >", " ", "\t", "\n", "\x0b", "\x1c", "\x85", "\u2003", "\u00b4", "\u0301"]


@pytest.mark.parametrize(("tokenizer", "start"), [(FITTED.tokenizer, 2), (bert(), 3)], ids=["ours", "bert"])
@given(
    st.lists(
        st.lists(st.sampled_from(PIECES) | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join),
        min_size=1,
        max_size=4,
    )
)
def test_the_tokens_of_words_are_those_that_the_library_finds_in_the_whole_text(tokenizer, start, rows):
    oracle = Tokenizer.from_str(tokenizer)
    oracle.encode_special_tokens = True
    ids, lengths = texts._token_ids(tokenizer, strings(*rows), 10)
    assert texts._load(tokenizer)[1] is not None
    expected = [encoding.ids for encoding in oracle.encode_batch(rows)]
    # The first two or three tokens, with [CLS], and the last ones, with [SEP].
    expected = [ids if len(ids) <= 10 else [*ids[:start], *ids[start - 10 :]] for ids in expected]
    assert [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])] == expected


def test_long_texts_are_truncated_and_an_empty_text_is_all_padding():
    tokens = FITTED.transform(strings("good " * 1000, ""))
    assert tokens[0].all()
    assert not tokens[1].any()


def test_record_round_trips_through_json():
    read_back = preprocessing.from_record(json.loads(json.dumps(FITTED.as_record())))
    assert read_back == FITTED
    np.testing.assert_array_equal(read_back.transform(drawn(5)), FITTED.transform(drawn(5)))


def test_vocabulary_depends_on_the_training_texts_only_and_is_the_same_in_every_process():
    assert texts.fit(drawn(200), vocabulary_size=320, max_length=48) == FITTED
    other = texts.fit(drawn(200, seed=2), vocabulary_size=320, max_length=48)
    assert other.tokenizer != FITTED.tokenizer
    # Programs contain only the sizes.
    assert other.program == FITTED.program != texts.fit(drawn(200), vocabulary_size=290, max_length=48).program
    code = (
        "import hashlib, sys; sys.path.insert(0, 'tests/data'); import test_preprocessing_texts as t;"
        "print(hashlib.sha256(t.FITTED.tokenizer.encode()).hexdigest())"
    )
    digests = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("lengths", "max_length", "widths"),
    [
        ([3, 4, 5], 100, (16,)),
        ([10, 20, 21, 22, 70], 1000, (16, 32, 128)),
        ([10, 20, 21, 22, 70], 50, (16, 32, 50)),
        ([10, 100], 8, (8,)),
        # One text in a hundred is not worth a compilation.
        ([1] + [60] * 99, 64, (64,)),
    ],
)
def test_widths_suit_the_lengths_of_the_training_texts(lengths, max_length, widths):
    assert texts._choose_widths(np.array(lengths), max_length) == widths


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (strings("a"), {"vocabulary_size": 100}, "vocabulary_size is 100; it must be 257"),
        (strings("a"), {"max_length": 0}, "max_length is 0"),
        (strings(), {}, "there are no texts"),
        (strings("a", None), {}, "row 2 is None"),
        (strings("a", 3.5), {}, "row 2 is 3.5"),
    ],
)
def test_invalid_arguments_of_fit_are_rejected(rows, options, message):
    with pytest.raises(InputError, match=message):
        texts.fit(rows, **{"vocabulary_size": 300, "max_length": 16, **options})


def test_transform_rejects_rows_that_are_not_texts():
    with pytest.raises(InputError, match="row 1 is nan"):
        FITTED.transform(strings(np.nan))


SMALL = texts.fit(np.array(["a film", "a good film"], object), vocabulary_size=300, max_length=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["normalizer"]["normalizers"][0]["pattern"].update(Regex="(a+)+$"), "was not trained by jaxcls"),
        (lambda t: t["normalizer"]["normalizers"][0].pop("content"), "was not trained by jaxcls"),
        (lambda t: t["added_tokens"][0].pop("single_word"), "was not trained by jaxcls"),
        (lambda t: t.update(post_processor=[]), "was not trained by jaxcls"),
        (lambda t: t.update({"0": None}), "was not trained by jaxcls"),
        (lambda t: t["model"]["merges"].append(["no", "token"]), "do not match"),
        (lambda t: t["model"]["vocab"].update(x=10_000), "do not match"),
    ],
    ids=range(7),
)
def test_a_tokenizer_not_trained_by_jaxcls_is_rejected(change, message):
    tokenizer = json.loads(SMALL.tokenizer)
    change(tokenizer)
    with pytest.raises(InputError, match=message):
        texts.TextPreprocessor.from_record(SMALL.as_record() | {"tokenizer": json.dumps(tokenizer)})


def test_tokenizers_of_earlier_library_versions_are_read():
    tokenizer = json.loads(SMALL.tokenizer)
    del tokenizer["model"]["ignore_merges"], tokenizer["padding"]
    tokenizer["model"]["merges"] = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    read = texts.TextPreprocessor.from_record(SMALL.as_record() | {"tokenizer": json.dumps(tokenizer)})
    inputs = np.array(["a good film"], object)
    np.testing.assert_array_equal(read.transform(inputs), SMALL.transform(inputs))


@pytest.mark.parametrize("widths", [[], [0], [16, 8], [1 << 40], ["8"]], ids=str)
def test_impossible_widths_are_rejected(widths):
    with pytest.raises(InputError, match="widths"):
        texts.TextPreprocessor.from_record(SMALL.as_record() | {"widths": widths})
