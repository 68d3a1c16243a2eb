"""--class-weight: weights by the name or number of a class, or computed from the training labels."""

import numpy as np
import pytest

from jaxcls._utils.errors import InputError
from jaxcls.training import problems
from jaxcls.training.settings import Settings

NAMES = ("cat", "dog", "3")
LABELS = np.array([0, 0, 0, 1, 2, 2])
LOGITS = np.linspace(-1.0, 2.0, 18).reshape(6, 3) ** 2


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        (("0:1", "1:3", "2:0.5"), [1, 3, 0.5]),
        (("dog:3",), [1, 3, 1]),
        (("3:4", "cat:0"), [0, 1, 4]),
        (("balanced",), 6 / (3 * np.array([3, 1, 2]))),
    ],
)
def test_losses_are_weighted_by_class(words, weights):
    settings = Settings(loss="softmax_cross_entropy", class_weight=words, monitor="loss")
    problem = problems.get("multiclass", NAMES)
    problem.check_settings(settings)
    losses = problem.objective(settings, LABELS, []).loss(LOGITS, LABELS, normalizer="none")
    logs = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(losses, -logs[range(6), LABELS] * np.asarray(weights)[LABELS], rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("balancd",), "'balancd': give balanced, effective, or a weight for each class, such as 0:1 1:3"),
        (("0:x",), "'0:x': give balanced"),
        (("0:-1",), "'0:-1': give balanced"),
        ((":2",), "':2': give balanced"),
        (("dogs:2",), "dogs:2: unknown class 'dogs'. Did you mean 'dog'?"),
    ],
)
def test_wrong_weights_are_refused(words, message):
    settings = Settings(loss="softmax_cross_entropy", class_weight=words, monitor="loss")
    problem = problems.get("multiclass", NAMES)
    with pytest.raises(InputError) as error:
        problem.objective(settings, LABELS, [])
    assert message in str(error.value)
