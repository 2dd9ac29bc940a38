#!/usr/bin/python3
"""Writes vectors.json: what scipy and plain numpy give for the intervals of
package validation. Needs python3-scipy (Debian: apt-get install python3-scipy).

    /usr/bin/python3 vectors.py > vectors.json
"""
import json
import sys

import numpy as np
import scipy
from scipy import optimize, stats


def tango(b, c, n, z):
    """The score interval of Tango (1998), by the constrained maximum likelihood
    found numerically: nothing of the closed form is used."""

    def score(delta):
        def loss(q):  # q is the probability of c's kind of pair
            p = q + delta
            if p < 0 or q < 0 or p + q > 1:
                return np.inf
            def term(k, x):
                return 0 if k == 0 else (-np.inf if x <= 0 else k * np.log(x))
            return -(term(b, p) + term(c, q) + term(n - b - c, 1 - p - q))

        lo, hi = max(0, -delta), (1 - delta) / 2
        q = optimize.minimize_scalar(loss, bounds=(lo, hi), method="bounded", options={"xatol": 1e-13}).x
        var = n * (2 * q + delta - delta * delta)
        return (b - c - n * delta) / np.sqrt(var)

    est = (b - c) / n
    low = optimize.brentq(lambda d: score(d) - z, -0.999, est - 1e-9 if b + c else -1e-12)
    high = optimize.brentq(lambda d: score(d) + z, est + 1e-9 if b + c else 1e-12, 0.999)
    return [low, high]


def wilson(k, n, confidence):
    ci = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    return [ci.low, ci.high]


def newcombe(a, n, b, m, confidence):
    p, q = a / n, b / m
    (pl, pu), (ql, qu) = wilson(a, n, confidence), wilson(b, m, confidence)
    return [p - q - np.hypot(p - pl, qu - q), p - q + np.hypot(pu - p, q - ql)]


def delong(truth, x, y):
    """Areas and standard error of their difference, pair by pair."""

    def parts(s):
        pos, neg = s[truth == 1], s[truth == 0]
        wins = (pos[:, None] > neg[None, :]) + 0.5 * (pos[:, None] == neg[None, :])
        return wins.mean(), wins.mean(axis=1), wins.mean(axis=0)

    a, a10, a01 = parts(x)
    b, b10, b01 = parts(y)
    m, n = len(a10), len(a01)
    s10, s01 = np.cov(a10, b10), np.cov(a01, b01)
    var = (s10[0, 0] + s10[1, 1] - 2 * s10[0, 1]) / m + (s01[0, 0] + s01[1, 1] - 2 * s01[0, 1]) / n
    return {
        "truth": truth.tolist(), "first": x.tolist(), "second": y.tolist(), "areas": [a, b], "se": float(np.sqrt(var)),
        "se_first": float(np.sqrt(s10[0, 0] / m + s01[0, 0] / n)),
        "mann_whitney": float(stats.mannwhitneyu(x[truth == 1], x[truth == 0]).statistic / (m * n)),
    }


def macro_f1(truth, said, k):
    out = []
    for c in range(k):
        tp, fp, fn = np.sum((truth == c) & (said == c)), np.sum((truth != c) & (said == c)), np.sum((truth == c) & (said != c))
        if tp + fp + fn:
            out.append(2 * tp / (2 * tp + fp + fn))
    return float(np.mean(out))


def main():
    rng = np.random.default_rng(20261123)
    z = stats.norm.ppf(0.95)
    out = {"made_with": f"scipy {scipy.__version__}, numpy {np.__version__}", "tango": [], "wilson": [], "newcombe": []}
    for b, c, n in [(12, 2, 50), (2, 12, 50), (0, 0, 40), (5, 0, 100), (60, 40, 1000), (310, 250, 100000)]:
        for zz in (z, stats.norm.ppf(0.975)):
            out["tango"].append({"b": b, "c": c, "n": n, "z": zz, "want": tango(b, c, n, zz)})
    for k, n in [(0, 20), (20, 20), (81, 263), (15, 148), (999, 1000)]:
        out["wilson"].append({"k": k, "n": n, "want": wilson(k, n, 0.95)})
    # Newcombe (1998), table II: cases of his and one more.
    for a, n, b, m in [(56, 70, 48, 80), (9, 10, 3, 10), (6, 7, 2, 7), (5, 56, 0, 29), (400, 1000, 300, 900)]:
        out["newcombe"].append({"a": a, "n": n, "b": b, "m": m, "want": newcombe(a, n, b, m, 0.95)})
    truth = rng.integers(0, 2, 60)
    x = np.round(truth + rng.normal(0, 0.9, 60), 1)  # rounded: ties
    y = np.round(truth + rng.normal(0, 1.4, 60), 1)
    out["delong"] = delong(truth, x, y)
    want = rng.normal(10, 2, 80)
    first, second = want + rng.normal(0, 1, 80), want + rng.gamma(2, 0.9, 80)
    diff = np.abs(second - want) - np.abs(first - want)
    ci = stats.bootstrap((diff,), np.mean, confidence_level=0.9, n_resamples=40000, method="BCa", random_state=rng).confidence_interval
    out["mae"] = {"truth": want.tolist(), "first": first.tolist(), "second": second.tolist(), "value": float(diff.mean()), "want": [ci.low, ci.high]}
    t = rng.integers(0, 4, 150)
    a = np.where(rng.random(150) < 0.85, t, rng.integers(0, 4, 150))
    b = np.where(rng.random(150) < 0.75, t, rng.integers(0, 4, 150))
    idx = np.arange(150)
    stat = lambda i: macro_f1(t[i], a[i], 4) - macro_f1(t[i], b[i], 4)
    ci = stats.bootstrap((idx,), lambda i: stat(i), confidence_level=0.9, n_resamples=6000, method="BCa", vectorized=False, random_state=rng).confidence_interval
    out["macro_f1"] = {"truth": t.tolist(), "first": a.tolist(), "second": b.tolist(), "value": stat(idx), "want": [ci.low, ci.high]}
    json.dump(out, sys.stdout, indent=1)
    print()


main()
