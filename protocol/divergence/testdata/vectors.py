"""Writes vectors.json: what SciPy says of the samples that vectors_test.go compares.

Run with Debian's python3-scipy (1.10): /usr/bin/python3 vectors.py > vectors.json
"""
import json
import sys

import numpy as np
from scipy import special, stats
from scipy.spatial import distance

PSEUDO = 0.5  # the pseudo-count of package divergence

TABLES = {
    "two even bins, one moved": ([500, 500], [250, 750], True),
    "no difference at all": ([100, 200, 300], [200, 400, 600], True),
    "eight bins, as in training": ([157, 157, 157, 157, 157, 157, 157, 158], [66, 58, 71, 60, 70, 55, 62, 58], True),
    "eight bins, shifted by half a sd": ([125] * 8, [30, 42, 48, 55, 62, 71, 86, 106], True),
    "an empty bin before": ([0, 400, 600], [25, 200, 275], True),
    "an empty bin after": ([40, 400, 560], [0, 240, 260], True),
    "a column empty in both": ([300, 0, 500, 200], [140, 0, 260, 100], True),
    "a rare bin in a large reference": ([3, 499_997, 500_000], [4, 266, 230], True),
    "categories": ([900, 60, 30, 10], [380, 60, 40, 20], False),
    "many categories": ([500, 200, 100, 80, 50, 30, 20, 10, 6, 4], [240, 110, 50, 35, 30, 10, 12, 8, 3, 2], False),
    "a million rows, a tenth of a percent": ([250_000] * 4, [250_500, 249_500, 250_000, 250_000], True),
}

SHARES = [(0, 5, 1000, 500), (0, 1, 100_000, 500), (12, 9, 1000, 500), (500, 240, 1000, 500), (20, 0, 1257, 540),
          (3000, 3300, 1_000_000, 1_000_000), (7, 7, 70, 70), (1, 40, 400, 40)]


def table(p, q, ordered):
    p, q = np.array(p), np.array(q)
    n, m = p.sum(), q.sum()
    used = p + q > 0
    a, b = p[used], q[used]
    smooth = lambda x: (x + PSEUDO) / (x.sum() + PSEUDO * len(x))
    psi = stats.entropy(smooth(a), smooth(b)) + stats.entropy(smooth(b), smooth(a))
    df = len(a) - 1
    chi2, chi2_p, chi2_df, _ = stats.chi2_contingency([a, b], correction=False)
    assert chi2_df == df
    out = {
        "psi": psi, "p": stats.chi2.sf(psi / (1 / n + 1 / m), df), "chi2_p": chi2_p, "df": df,
        "js": distance.jensenshannon(a / n, b / m, base=2), "l_inf": np.abs(a / n - b / m).max(),
        "ks": 0.0, "ks_p": 1.0,
    }
    if ordered:
        # every value stands for its bin, in the middle of it: ties within a bin
        cum = np.abs(np.cumsum(p / n) - np.cumsum(q / m)).max()
        if n + m < 1_000_000:
            d = stats.ks_2samp(np.repeat(np.arange(len(p)), p), np.repeat(np.arange(len(q)), q), mode="asymp").statistic
            assert abs(d - cum) < 1e-12
        out["ks"] = cum
        out["ks_p"] = stats.kstwobign.sf(cum * np.sqrt(n * m / (n + m)))
    return {k: float(v) for k, v in out.items()}


def share(a, b, n, m):
    """Both tails of Fisher's exact test; package divergence doubles the smaller."""
    rows = [[b, m - b], [a, n - a]]
    tails = [stats.fisher_exact(rows, alternative=side)[1] for side in ("greater", "less")]
    return float(min(1, 2 * min(tails)))


def values(seed, n, m, shift):
    """Two samples of values with their own Kolmogorov-Smirnov test."""
    rng = np.random.default_rng(seed)
    x, y = np.round(rng.normal(size=n), 4), np.round(rng.normal(shift, 1.2, size=m), 4)
    test = stats.ks_2samp(x, y, mode="asymp")
    edges = np.quantile(x, np.arange(1, 8) / 8)
    return {"x": x.tolist(), "y": y.tolist(), "edges": edges.tolist(), "d": float(test.statistic),
            "p": float(stats.kstwobign.sf(test.statistic * np.sqrt(n * m / (n + m))))}


json.dump({
    "tables": [{"name": k, "before": list(p), "after": list(q), "ordered": o, "want": table(p, q, o)} for k, (p, q, o) in TABLES.items()],
    "shares": [{"a": a, "b": b, "n": n, "m": m, "p": share(a, b, n, m)} for a, b, n, m in SHARES],
    "kolmogorov": [{"x": x, "p": float(special.kolmogorov(x))} for x in (0.1, 0.3, 0.5, 0.8, 1.0, 1.17, 1.19, 1.36, 1.63, 2.0, 3.0)],
    "values": [values(1, 240, 160, 0.0), values(2, 240, 160, 0.25), values(3, 300, 90, 0.6)],
}, sys.stdout, indent=None, separators=(",", ":"))
sys.stdout.write("\n")
