#!/usr/bin/env python3
"""Trains the next version of the demo's model, as a training pipeline would
when the fleet asks for it. Needs Debian's python3-sklearn and python3-onnx.

    python3 retrain.py EVENT OUT [SAMPLE]

EVENT is the CloudEvent that asked for it (JSON). SAMPLE, if there is one, holds
rows that devices were allowed to send, with the truth that arrived later: 64
pixels and the digit. Written to OUT, to be logged to the control plane's MLflow
API as the artifacts of a run:

    model/model.onnx            the graph, fp32: X [N,64] -> label [N], probabilities [N,10]
    model/vedette/training.csv  training rows: 64 pixels, the condition they were taken under
    model/vedette/expected.csv  what scikit-learn computes for those rows
    run.json                    parameters, metrics and versions, for the run
"""

import csv
import json
import pathlib
import platform
import sys

import numpy as np
import onnx
import sklearn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import train


def sample(path):
    """Rows of the field with their truths, in the demo's columns."""
    rows, truths = [], []
    with open(path, newline="") as f:
        for row in csv.DictReader(f):
            rows.append([float(row[p]) for p in train.PIXELS])
            truths.append(int(row["digit"]))
    return np.array(rows, np.float32).reshape(-1, 64), np.array(truths, int)


def main(event, out, field=None):
    asked = json.loads(pathlib.Path(event).read_text())
    (out / "model" / "vedette").mkdir(parents=True, exist_ok=True)
    x, y = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=540, stratify=y, random_state=train.SEED)
    parts = [(train_x, train_y, "clean"), (train.fade(train_x), train_y, "faded")]
    if field:
        rows, truths = sample(field)
        parts.append((rows, truths, "field"))
    rows = np.concatenate([p[0] for p in parts])
    truths = np.concatenate([p[1] for p in parts])
    model = train.train(rows, truths)

    onnx.save(train.graph(model, "digits"), out / "model" / "model.onnx")
    train.write(out / "model" / "vedette" / "training.csv", train.PIXELS + ["condition"],
                ([*map(int, r), c] for p in parts for r, c in zip(p[0], [p[2]] * len(p[0]))))
    train.write(out / "model" / "vedette" / "expected.csv", ["label"] + [f"p{k}" for k in range(10)],
                ([int(s.argmax()), *(f"{p:.9g}" for p in s)] for s in model.predict_proba(rows / 16.0)))
    run = {
        "params": {"seed": train.SEED, "hidden_layers": "128,64", "alpha": "1e-3",
                   "rows": len(rows), "field_rows": len(parts[2][0]) if field else 0},
        "metrics": {"accuracy_clean": round(model.score(test_x / 16.0, test_y), 4),
                    "accuracy_faded": round(model.score(train.fade(test_x) / 16.0, test_y), 4),
                    "loss": [round(v, 6) for v in model.loss_curve_]},
        "environment": {"python": platform.python_version(), "scikit_learn": sklearn.__version__, "onnx": onnx.__version__},
        "asked_by": asked.get("id", ""),
        "source": f"scikit-learn {sklearn.__version__}",
    }
    (out / "run.json").write_text(json.dumps(run, indent=2) + "\n")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(sys.argv[1], pathlib.Path(sys.argv[2]), *sys.argv[3:])
