"""Inputs described by columns: measures of images and texts, and the columns of a table that a model uses."""

import numpy as np

from jaxcls.data import descriptions
from jaxcls.data.preprocessing import tables
from jaxcls.metrics import shift as statistics
from jaxcls.reports import shift


def test_images_are_described_by_their_pixels():
    images = np.zeros((3, 4, 6, 3), np.uint8)
    images[1] = 255
    images[2, :, ::2] = 255
    columns = descriptions.columns(images)
    np.testing.assert_allclose(columns["brightness"], [0, 1, 0.5], atol=1e-6)
    np.testing.assert_allclose(columns["contrast"], [0, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose(columns["sharpness"], [0, 0, 1], atol=1e-6)
    canvases = {"pixels": images, "size": np.zeros((3, 2), np.int32)}
    assert descriptions.columns(canvases) == {}


def test_texts_of_another_language_differ_where_their_length_is_equal():
    random = np.random.default_rng(0)
    english, german = ["the", "good", "film", "was", "fine"], ["der", "schöne", "Film", "war", "gut"]

    def texts(words):
        return np.array([" ".join(random.choice(words, 20)) for _ in range(300)], object)

    record = shift.reference(texts(english))
    assert shift.line(shift.compare(record, texts(english), None, "detection")) is None
    assert {"not ASCII", "capitals"} <= {
        one.column for one in shift.compare(record, texts(german), None, "detection") if one.is_large
    }
    np.testing.assert_array_equal(descriptions.columns(np.array(["Aß 12", ""], object))["digits"], [0.4, 0])


def table(rows, first=0):
    random = np.random.default_rng(first)
    return {
        "id": np.arange(first, first + rows).astype(np.float64),
        "size": random.normal(size=rows),
        "price": np.array([f"{value:.2f}".replace(".", ",") for value in random.random(rows)], object),
        "color": random.choice(np.array(["red", "blue", ""], object), rows),
        "day": np.array([f"2024-01-{1 + index % 28:02}" for index in range(rows)], object),
    }


def test_a_table_is_described_by_the_columns_that_the_model_uses():
    fitted = tables.fit(table(300), decimal=",")
    columns = descriptions.columns(table(300), preprocessor=fitted)
    assert {*columns} == {"size", "price", "color", "day (days)", "day (day)", "day (weekday)"}
    assert columns["price"].dtype == np.float64
    # A running number continues, and a number is spelled as a word: neither is a reason to fail, or to warn.
    record = shift.reference(table(300), fitted)
    new = table(300, first=300)
    assert shift.line(shift.compare(record, new, None, "detection", None, fitted)) is None
    new["size"] = np.array(["unknown"] * 300, object)
    [large] = [one for one in shift.compare(record, new, None, "detection", None, fitted) if one.is_large]
    assert (large.column, large.now) == ("size is missing", "100.0%")


def test_random_parts_of_a_long_sorted_table_are_alike():
    random = np.random.default_rng(0)
    customers = np.repeat(random.normal(size=3000), 1000)
    chosen = random.random(len(customers)) < 0.6
    record = shift.reference({"x": customers[chosen]})
    assert shift.line(shift.compare(record, {"x": customers[~chosen]}, None, "detection")) is None


def test_large_rows_and_many_rows_are_sampled_always_alike():
    features = np.zeros((30_000, 2), np.float32)
    rows = descriptions.sampled_rows(features)
    assert len(np.unique(rows)) == descriptions.MOST_ROWS
    np.testing.assert_array_equal(rows, descriptions.sampled_rows(features))
    photographs = np.broadcast_to(np.zeros((1, 512, 512, 3), np.uint8), (1000, 512, 512, 3))
    assert len(descriptions.sampled_rows(photographs)) == (1 << 27) // (512 * 512 * 3)


def test_the_share_of_each_predicted_class_is_compared():
    scores = np.tile([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]], (200, 1))
    before = statistics.reference(statistics.score_columns(scores, "multiclass", ("cat", "dog", "owl")))
    now = statistics.score_columns(np.roll(scores, 1, axis=1), "multiclass", ("cat", "dog", "owl"))
    [shown] = [one for one in statistics.compare(before, now) if one.is_large]
    assert (shown.column, shown.difference, shown.before, shown.now) == ("class", 0.5, "cat: 50.0%", "cat: 0.0%")
