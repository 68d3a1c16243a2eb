"""The estimator: scikit-learn's checks, and what its tools do with it."""

import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import jaxcls
from jaxcls import JaxClassifier
from jaxcls.tasks import estimator as module

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 3))
KINDS = np.array(["ant", "bee", "cat"])[X.argmax(axis=1)]
# Each compiles steps for shapes of its own; experiments/estimators.py runs all.
LEFT_OUT = {
    *("check_n_features_in_after_fitting", "check_positive_only_tag_during_fit", "check_estimators_dtypes"),
    *("check_sample_weights_pandas_series", "check_sample_weights_shape", "check_dtype_object"),
    *("check_sample_weight_equivalence_on_dense_data", "check_pipeline_consistency", "check_estimators_pickle"),
    *("check_classifier_data_not_an_array", "check_classifiers_one_label_sample_weights", "check_classifiers_classes"),
    *("check_classifiers_train", "check_classifiers_multilabel_representation_invariance", "check_fit2d_1feature"),
    *("check_classifiers_multilabel_output_format_predict", "check_class_weight_classifiers", "check_fit_idempotent"),
    *("check_classifiers_multilabel_output_format_predict_proba", "check_fit_check_is_fitted"),
    *("check_sample_weights_not_an_array", "check_sample_weights_list", "check_sample_weights_not_overwritten"),
    *("check_n_features_in", "check_array_api_input", "check_classifiers_multilabel_output_format_decision_function"),
}


def classifier(**options):
    return JaxClassifier(**{"model": "linear", "epochs": 30, "learning_rate": 0.05, **options})


@pytest.fixture(scope="module")
def fitted():
    return classifier().fit(X, KINDS)


@pytest.mark.filterwarnings("ignore")
def test_checks_of_scikit_learn_pass():
    passed = 0
    for estimator, check in estimator_checks_generator(classifier(), mark="skip"):
        if check.func.__name__ not in LEFT_OUT:
            check(estimator)
            passed += 1
    assert passed > 30


def test_classes_are_learned_and_the_estimator_is_pickled_without_programs(fitted):
    scores = fitted.predict_proba(X)
    assert fitted.classes_.tolist() == ["ant", "bee", "cat"]
    assert fitted.score(X, KINDS) > 0.9
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), scores, rtol=1e-6)
    pickled = pickle.dumps(fitted)
    assert len(pickled) < 10_000
    np.testing.assert_array_equal(pickle.loads(pickled).predict_proba(X), scores)
    np.testing.assert_array_equal(clone(fitted).fit(X, KINDS).predict_proba(X), scores)
    other_seed = clone(fitted).set_params(random_state=np.random.RandomState(3)).fit(X, KINDS)
    assert (other_seed.predict_proba(X) != scores).any()


def test_a_search_over_a_pipeline_compiles_once_for_all_rates_and_folds(fitted):
    fitted.predict(X)
    before = set(module._EXPERIMENTS)
    rates = {"jaxclassifier__learning_rate": [1e-5, 0.05], "jaxclassifier__dropout": [0.1, 0.2]}
    search = GridSearchCV(make_pipeline(StandardScaler(), classifier()), rates, cv=2, scoring="neg_log_loss")
    search.fit(X, KINDS)
    assert search.best_params_["jaxclassifier__learning_rate"] == 0.05
    assert search.predict(X[:2]).tolist() == fitted.predict(X[:2]).tolist()
    assert set(module._EXPERIMENTS) == before


def test_weights_of_classes_and_rows_count():
    weights = ({"bee": 0.01}, None, {"bee": 100.0})
    counts = [(classifier(class_weight=weight).fit(X, KINDS).predict(X) == "bee").sum() for weight in weights]
    assert counts[0] < counts[1] < counts[2]
    some = np.arange(60) < 40
    np.testing.assert_array_equal(
        classifier().fit(X, KINDS, some).predict_proba(X), classifier().fit(X[some], KINDS[some]).predict_proba(X)
    )
    # Those of classes and of rows are multiplied.
    both = classifier(class_weight={"bee": 2.0}).fit(X, KINDS, np.full(60, 0.5)).predict_proba(X)
    np.testing.assert_array_equal(both, classifier().fit(X, KINDS, np.where(KINDS == "bee", 1, 0.5)).predict_proba(X))


def test_columns_of_a_data_frame_are_categories_words_dates_and_numbers_with_gaps_and_labels_may_be_several():
    frame = pd.DataFrame(
        {
            "code": pd.Categorical(X.argmax(axis=1)),
            "word": np.where(np.arange(60) % 2, "even", None),
            "size": np.where(X[:, 0] > 1, np.nan, X[:, 0]),
            "day": pd.date_range("2020-01-01", periods=60),
        }
    )
    labels = np.stack([KINDS == "bee", X[:, 0] > 0], axis=1).astype(int)
    estimator = classifier(class_weight="balanced").fit(frame, labels)
    assert {*estimator._learned["preprocessor"]["categories"]} == {"code", "word"}
    assert {*estimator._learned["preprocessor"]["dates"]} == {"day"}
    assert estimator.feature_names_in_.tolist() == ["code", "word", "size", "day"]
    assert ((estimator.predict(frame) == labels).mean(axis=0) > 0.8).all()
    # A code may come as a number, and one that was never seen is no error.
    scores = estimator.predict_proba(frame.head(3))
    assert scores.shape == (3, 2)
    np.testing.assert_array_equal(estimator.predict_proba(frame.head(3).astype({"code": int})), scores)
    assert np.isfinite(estimator.predict_proba(frame.head(3).assign(code=7))).all()
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(frame[["word", "code", "size", "day"]])
    with pytest.raises(ValueError, match="X is a ndarray; the estimator was fitted to a DataFrame"):
        estimator.predict(X)
    with pytest.raises(ValueError, match="column 'size' of X contains infinity"):
        estimator.predict(frame.assign(size=np.inf))
    with pytest.raises(ValueError, match="X has several columns of the name 'code'"):
        classifier().fit(pd.concat([frame, frame], axis=1), KINDS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"label_smoothing": 2.0}, "label_smoothing is 2.0"),
        ({"optimizer": "adamm"}, "Did you mean 'adam'"),
        ({"model": "tree"}, "tree"),
        ({"class_weight": {"dog": 2}}, "class_weight has 'dog', which is no class of y"),
    ],
    ids=["learning_rate", "label_smoothing", "optimizer", "model", "class_weight"],
)
def test_what_is_wrong_is_named_as_in_python(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        classifier(**options).fit(X, KINDS)
    assert "--" not in str(caught.value)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "jaxcls.tasks.estimator")
    with pytest.raises(ImportError, match=r"pip install 'jaxcls\[sklearn\]'"):
        _ = jaxcls.JaxClassifier
