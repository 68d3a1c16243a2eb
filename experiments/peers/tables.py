"""A classifier of another library with its default settings: trains on one CSV file, and scores the rows of another.

    python experiments/peers/tables.py LightGBM train.csv test.csv label_column

Prints the log loss and the accuracy of the test rows as JSON. Columns of words are the libraries' own categories;
logistic regression gets them one-hot, and numbers standardized, with the median for missing ones.
"""

import json
import sys
from typing import Any

import numpy as np


def lightgbm(categories: list[str]) -> Any:
    import lightgbm

    return lightgbm.LGBMClassifier(verbose=-1)


def xgboost(categories: list[str]) -> Any:
    import xgboost

    return xgboost.XGBClassifier(enable_categorical=True)


def catboost(categories: list[str]) -> Any:
    import catboost

    return catboost.CatBoostClassifier(verbose=False, allow_writing_files=False, cat_features=categories)


def hist_gradient_boosting(categories: list[str]) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(categorical_features="from_dtype")


def logistic_regression(categories: list[str]) -> Any:
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), categories),
        (make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=5000))


PEERS = {
    "LightGBM": lightgbm,
    "XGBoost": xgboost,
    "CatBoost": catboost,
    "HistGradientBoosting": hist_gradient_boosting,
    "logistic regression": logistic_regression,
}


def main(peer: str, train_file: str, test_file: str, label: str) -> None:
    import pandas as pd

    train, test = pd.read_csv(train_file), pd.read_csv(test_file)
    classes, labels = np.unique(train.pop(label), return_inverse=True)
    test_labels = np.searchsorted(classes, test.pop(label))
    categories = [name for name in train if not pd.api.types.is_numeric_dtype(train[name])]
    for name in categories:
        if peer == "CatBoost":
            train[name], test[name] = (column.fillna("").astype(str) for column in (train[name], test[name]))
        else:
            train[name] = train[name].astype("category")
            test[name] = test[name].astype(train[name].dtype)
    model = PEERS[peer](categories)
    model.fit(train, labels)
    scores = np.clip(np.asarray(model.predict_proba(test), np.float64), 1e-7, 1)
    scores /= scores.sum(axis=1, keepdims=True)
    loss = -np.log(scores[np.arange(len(test)), test_labels]).mean()
    print(json.dumps({"log_loss": loss, "accuracy": (scores.argmax(axis=1) == test_labels).mean()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
