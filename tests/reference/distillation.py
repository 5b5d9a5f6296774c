"""Distillation and ensembles in numpy, with loops: the formulas of the papers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def softmax(z: Array, temperature: float = 1.0) -> Array:
    """Hinton et al. 2015, equation 1, of one row."""
    shifted = np.exp((z - np.max(z)) / temperature)
    return np.asarray(shifted / shifted.sum())


def divergence(p: Array, q: Array) -> float:
    """Kullback-Leibler divergence in nats; what has no probability adds nothing."""
    return sum(float(a) * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def soft_row(student: Array, teacher: Array, temperature: float) -> float:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * divergence(p, q)


def hard_row(student: Array, label: int, smoothing: float) -> float:
    """Cross entropy with the label's distribution mixed with the uniform one."""
    q, K = softmax(student), len(student)
    target = np.full(K, smoothing / K)
    target[label] += 1 - smoothing
    return -sum(float(t) * math.log(x) for t, x in zip(target, q, strict=True))


def entropy(p: Array) -> float:
    return -sum(float(a) * math.log(a) for a in p if a > 0)


def combined(logits: Array, weights: Array, how: str) -> Array:
    """One row from those of the members, shape (M, K)."""
    if how == "probabilities":
        return np.asarray(sum(w * softmax(z) for w, z in zip(weights, logits, strict=True)))
    mean = sum(w * z for w, z in zip(weights, logits, strict=True))
    return softmax(np.asarray(mean))


def mutual_information(members: Array, weights: Array) -> float:
    """Mean divergence of the members from their mean, shape (M, K)."""
    mean = np.asarray(sum(w * p for w, p in zip(weights, members, strict=True)))
    return sum(float(w) * divergence(p, mean) for w, p in zip(weights, members, strict=True))


def disagreement(classes: Array, weights: Array) -> float:
    """Share of pairs of different members, and of samples, that are of two classes."""
    total = count = 0.0
    for i in range(len(classes)):
        for j in range(len(classes)):
            if i != j:
                pair = float(weights[i] * weights[j])
                total += pair * float(np.mean(classes[i] != classes[j]))
                count += pair
    return total / count


def calibration_error(confidence: Array, correct: Array, edges: Array) -> float:
    """Guo et al. 2017, equation 3: bins [edge, next edge), the last one closed."""
    total, n = 0.0, len(confidence)
    for k in range(len(edges) - 1):
        inside = (confidence >= edges[k]) & (confidence < edges[k + 1])
        if k == len(edges) - 2:
            inside |= confidence == edges[-1]
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            total += inside.sum() / n * gap
    return total
