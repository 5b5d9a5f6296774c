"""Streaming metrics: the numbers of torchmetrics and of the definitions, whatever the batches."""

from __future__ import annotations

import itertools
import math
import pickle
from typing import Any

import numpy as np
import pytest

from pyspectra.training.metric_kinds import kind_of, known_kinds, split_and_metric
from pyspectra.training.metrics import Classification, Regression, computed, gathered

SPLITS = ([0, 500], [0, 1, 2, 250, 251, 500], [*list(range(0, 501, 7)), 500])


def in_batches(metric: Any, predictions: Any, targets: Any, cuts: list[int]) -> Any:
    for start, end in itertools.pairwise(cuts):
        metric.update(predictions[start:end], targets[start:end])
    return metric


# --- regression ---------------------------------------------------------------------------------


def regression_data(outputs: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (500,) if outputs is None else (500, outputs)
    targets = 1000 + rng.standard_normal(shape)
    return targets + 0.5 * rng.standard_normal(shape), targets


@pytest.mark.parametrize("cuts", SPLITS)
@pytest.mark.parametrize("outputs", [None, 3])
def test_regression_is_that_of_the_definitions(cuts: list[int], outputs: int | None) -> None:
    y, t = regression_data(outputs)
    found = in_batches(Regression(), y, t, cuts).compute()
    residual, total = ((y - t) ** 2).sum(axis=0), ((t - t.mean(axis=0)) ** 2).sum(axis=0)
    assert found == pytest.approx(
        {
            "mse": np.mean((y - t) ** 2),
            "rmse": math.sqrt(np.mean((y - t) ** 2)),
            "mae": np.mean(abs(y - t)),
            "mape": np.mean(abs(y - t) / abs(t)),
            "max_error": np.max(abs(y - t)),
            "r2": np.mean(1 - residual / total),
        },
        rel=1e-12,
    )


def test_regression_is_that_of_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    y, t = regression_data()
    y, t = torch.as_tensor(y - 1000), torch.as_tensor(t - 1000)
    theirs = torchmetrics.MetricCollection(
        [
            torchmetrics.MeanSquaredError(),
            torchmetrics.MeanAbsoluteError(),
            torchmetrics.MeanAbsolutePercentageError(),
            torchmetrics.R2Score(),
        ]
    ).set_dtype(torch.float64)
    theirs.update(y, t)
    ours = in_batches(Regression(), y, t, [0, 100, 500])
    expected = computed(theirs)
    assert expected.keys() == {"mse", "mae", "mape", "r2"}
    assert {k: v for k, v in computed(ours).items() if k in expected} == pytest.approx(
        expected, rel=1e-6
    )
    rmse = torchmetrics.MeanSquaredError(squared=False)
    rmse.update(y, t)
    assert computed(rmse) == pytest.approx({"rmse": ours.compute()["rmse"]}, rel=1e-5)


def test_regression_of_no_batch_of_a_constant_and_of_nan() -> None:
    metric = Regression()
    assert all(math.isnan(value) for value in metric.compute().values())
    metric.update([1.0, 1.0], [1.0, 1.0])
    assert metric.compute()["r2"] == 1.0
    metric.update([2.0], [1.0])
    assert metric.compute()["r2"] == 0.0
    metric.update([math.nan], [1.0])
    found = metric.compute()
    assert all(math.isnan(found[name]) for name in ("mse", "rmse", "mae", "max_error", "r2"))
    metric.reset()
    assert metric.n == 0


def test_regression_refuses_shapes_that_would_compare_all_pairs() -> None:
    with pytest.raises(ValueError, match=r"\(5, 1\).*got \(5,\).*squeeze"):
        Regression().update(np.ones((5, 1)), np.ones(5))
    metric = Regression()
    metric.update(np.ones((5, 2)), np.ones((5, 2)))
    with pytest.raises(ValueError, match="2 outputs"):
        metric.update(np.ones((5, 3)), np.ones((5, 3)))
    with pytest.raises(TypeError, match="real numbers"):
        metric.update(["a"], ["b"])
    with pytest.raises(TypeError, match="must be a Regression"):
        metric.merge(Classification(2))  # type: ignore[arg-type]


# --- classification -----------------------------------------------------------------------------


def class_data(classes: int, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    labels = rng.choice(classes, n, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    logits = rng.standard_normal((n, classes))
    logits[np.arange(n), labels] += 1.5
    return logits, labels


@pytest.mark.parametrize("cuts", SPLITS)
@pytest.mark.parametrize("classes", [3, 10])
def test_classification_is_that_of_torchmetrics(classes: int, cuts: list[int]) -> None:
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    logits, labels = class_data(classes)
    ours = in_batches(Classification(classes), logits, labels, cuts)
    of = torchmetrics.classification
    theirs = {
        "accuracy": of.MulticlassAccuracy(classes, average="micro"),
        "balanced_accuracy": of.MulticlassAccuracy(classes, average="macro"),
        "precision": of.MulticlassPrecision(classes, average="macro"),
        "recall": of.MulticlassRecall(classes, average="macro"),
        "tpr": of.MulticlassRecall(classes, average="macro"),
        "f1": of.MulticlassF1Score(classes, average="macro"),
        "ece": of.MulticlassCalibrationError(classes, n_bins=15, norm="l1"),
    }
    found = ours.compute()
    assert found.keys() == theirs.keys()
    for name, metric in theirs.items():
        expected = metric(torch.as_tensor(logits), torch.as_tensor(labels))
        assert found[name] == pytest.approx(float(expected), abs=1e-5), name
    matrix = of.MulticlassConfusionMatrix(classes)
    expected = matrix(torch.as_tensor(logits), torch.as_tensor(labels))
    assert (ours.confusion == expected.numpy()).all()


def test_two_classes_are_those_of_torchmetrics_for_class_one() -> None:
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    logits, labels = class_data(2)
    score = logits[:, 1] - logits[:, 0]
    ours = in_batches(Classification(2), score, labels, [0, 300, 500]).compute()
    of = torchmetrics.classification
    for name, metric in {
        "accuracy": of.BinaryAccuracy(),
        "precision": of.BinaryPrecision(),
        "recall": of.BinaryRecall(),
        "f1": of.BinaryF1Score(),
        "ece": of.BinaryCalibrationError(n_bins=15, norm="l1"),
    }.items():
        expected = float(metric(torch.as_tensor(score), torch.as_tensor(labels)))
        assert ours[name] == pytest.approx(expected, abs=1e-5), name
    both = in_batches(Classification(2), logits, labels, [0, 500]).compute()
    assert {k: both[k] for k in ("accuracy", "recall")} == {
        k: ours[k] for k in ("accuracy", "recall")
    }
    macro = in_batches(Classification(2, average="macro"), logits, labels, [0, 500]).compute()
    assert macro["recall"] == macro["balanced_accuracy"] != both["recall"]


def test_classes_that_are_absent_do_not_count() -> None:
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    predicted, labels = np.array([0, 1, 1, 2]), np.array([0, 0, 1, 1])  # of 5 classes, 2 are unseen
    ours = Classification(5)
    ours.update(predicted, labels)
    for name, kind in {"precision": "Precision", "recall": "Recall", "f1": "F1Score"}.items():
        metric = getattr(torchmetrics.classification, f"Multiclass{kind}")(5, average="macro")
        expected = float(metric(torch.as_tensor(predicted), torch.as_tensor(labels)))
        assert ours.compute()[name] == pytest.approx(expected), name
    assert ours.compute()["balanced_accuracy"] == 0.5
    assert math.isnan(ours.compute()["ece"])
    per_class = ours.per_class()
    assert per_class["support"].tolist() == [2, 2, 0, 0, 0]
    assert per_class["recall"].tolist() == [0.5, 0.5, 0, 0, 0]


def test_calibration_has_bins_of_confidence() -> None:
    metric = Classification(2, n_bins=4)
    metric.update([0.1, 0.6, 0.6, 1.0], [0, 1, 0, 1])
    found = metric.calibration
    assert found["count"].tolist() == [1, 0, 2, 1]
    assert found["correct"][2] == 0.5
    assert found["confidence"][2] == pytest.approx(0.6)
    assert np.isnan(found["correct"][1])


def test_labels_to_be_ignored_and_sequences_of_tokens() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((4, 7, 3)), rng.integers(0, 3, (4, 7))
    labels[:, 5:] = -100
    metric = Classification(3)
    metric.update(logits, labels)
    assert metric.n == 20
    kept = labels >= 0
    assert metric.compute()["accuracy"] == (logits.argmax(-1) == labels)[kept].mean()


def test_values_of_any_precision() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    logits, labels = class_data(3)
    expected = in_batches(Classification(3), logits, labels, [0, 500]).confusion
    tensor = torch.as_tensor(logits, dtype=torch.bfloat16).requires_grad_()
    metric = Classification(3)
    metric.update(tensor, torch.as_tensor(labels))
    assert np.abs(metric.confusion - expected).sum() <= 8


@pytest.mark.parametrize(
    ("predictions", "targets", "match"),
    [
        (np.ones((4, 3)), [0, 1, 2], "shape"),
        (np.ones((3, 3)), [0, 1, 3], "from 0 to 2, got 3"),
        ([0, 1, 7], [0, 1, 2], "'predictions'.*got 7"),
        (np.ones((3, 3)), [0.0, 1.0, 2.0], "be integers"),
        ([0.1, 0.2, 0.3], [0, 1, 2], "scores of every class"),
    ],
)
def test_classification_refuses_what_does_not_fit(
    predictions: Any, targets: Any, match: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        Classification(3).update(predictions, targets)
    with pytest.raises(ValueError, match="two classes"):
        Classification(3, average="positive")


# --- ranks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_parts_of_ranks_merge_to_the_whole(kind: str) -> None:
    make: Any = Regression if kind == "regression" else lambda: Classification(3)
    y, t = regression_data() if kind == "regression" else class_data(3)
    whole = in_batches(make(), y, t, [0, 500]).compute()
    parts = [in_batches(make(), y, t, cuts) for cuts in ([0, 10], [10, 400], [400, 500])]
    parts.append(make())  # a rank without a batch
    total = make()
    for part in parts:
        total.merge(pickle.loads(pickle.dumps(part)))
    assert total.n == 500
    assert total.compute() == pytest.approx(whole, rel=1e-12)


def test_without_a_process_group_what_is_gathered_is_a_copy() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    metric = Regression()
    metric.update([1.0], [2.0])
    copy = gathered(metric)
    copy.reset()
    assert metric.n == 1


# --- names --------------------------------------------------------------------------------------


def test_every_metric_has_a_record_with_a_direction() -> None:
    names = {*Regression().compute(), *Classification(2).compute()}
    assert names <= {kind.name for kind in known_kinds()}
    assert all(kind_of(name).better for name in names)
    assert kind_of("rmse").unit == kind_of("mae").unit != kind_of("accuracy").unit
    assert kind_of("acc").better == "higher"


@pytest.mark.parametrize(
    ("name", "better"),
    [("ranking_loss", "lower"), ("macroF1", "higher"), ("bleu", "higher"), ("wer", "lower"),
     ("mean_average_precision", "higher"), ("mAP", "higher"), ("temperature", None)],
)  # fmt: skip
def test_words_in_a_name_tell_its_direction(name: str, better: str | None) -> None:
    assert kind_of(name).better == better


def test_splits_are_read_off_names() -> None:
    assert split_and_metric("eval_squad_f1") == ("val", "squad_f1")
    assert split_and_metric("train/loss") == ("train", "loss")
    assert split_and_metric("value") == (None, "value")
    assert split_and_metric("validity") == (None, "validity")


def test_only_metric_objects_are_computed() -> None:
    with pytest.raises(TypeError, match=r"compute\(\)"):
        computed(3)


class PerClass:
    def compute(self) -> Any:
        return np.array([0.5, 1.0])


def test_several_numbers_of_one_metric_are_counted() -> None:
    assert computed(PerClass()) == {"per_class_0": 0.5, "per_class_1": 1.0}
    assert computed(PerClass(), "iou") == {"iou_0": 0.5, "iou_1": 1.0}
