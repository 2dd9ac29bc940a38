#!/usr/bin/env python3
"""Makes the demo's models and data. Needs Debian's python3-sklearn and python3-onnx.

    python3 train.py OUT

writes, for a meter-reading camera that sees 8x8 grey images of one digit
(UCI optical digits as bundled with scikit-learn, pixel values 0 to 16):

    digits-1.onnx, digits-2.onnx     the graph, fp32: X [N,64] -> label [N], probabilities [N,10]
    digits-N.train.csv               training rows: 64 pixels, the condition they were taken under
    digits-N.expected.csv            what scikit-learn computes for those rows: label, p0..p9
    heldout.csv                      held-out rows: 64 pixels and the true digit
    metrics.json                     accuracies as scikit-learn measures them

Version 1 saw clean images only. Version 2 saw clean ones and ones whose lens
has faded and blurred; its expected outputs come from scikit-learn too, never
from the graph, so that a graph that computes something else is found out.
"""

import csv
import json
import pathlib
import sys

import numpy as np
import onnx
import sklearn
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 20261123
PIXELS = [f"p{r}{c}" for r in range(8) for c in range(8)]


def fade(images):
    """An ageing lens: a 3x3 binomial blur (edges repeated), contrast down to
    a half, haze of 3 on top, in float32 and rounded to the sensor's whole steps.
    The demo's cameras do the same in Go."""
    x = images.reshape(-1, 8, 8).astype(np.float32)
    for axis in (1, 2):
        pad = np.concatenate([x.take([0], axis), x, x.take([7], axis)], axis)
        x = (pad.take(range(0, 8), axis) + 2 * x + pad.take(range(2, 10), axis)) / np.float32(4)
    return np.floor(x * np.float32(0.5) + np.float32(3) + np.float32(0.5)).reshape(-1, 64)


def train(rows, labels):
    model = MLPClassifier((128, 64), alpha=1e-3, max_iter=400, random_state=SEED)
    return model.fit(rows / 16.0, labels)


def graph(model, name):
    """The network as ONNX: Div, then MatMul + Add (+ Relu) per layer, Softmax, ArgMax."""
    nodes, weights, x = [], [numpy_helper.from_array(np.float32(16), "scale")], "scaled"
    nodes.append(helper.make_node("Div", ["X", "scale"], ["scaled"]))
    last = len(model.coefs_) - 1
    for i, (w, b) in enumerate(zip(model.coefs_, model.intercepts_)):
        weights += [numpy_helper.from_array(w.astype(np.float32), f"w{i}"),
                    numpy_helper.from_array(b.astype(np.float32), f"b{i}")]
        nodes += [helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"]),
                  helper.make_node("Add", [f"m{i}", f"b{i}"], [f"a{i}"])]
        x = f"a{i}"
        if i < last:
            nodes.append(helper.make_node("Relu", [x], [f"r{i}"]))
            x = f"r{i}"
    nodes += [helper.make_node("Softmax", [x], ["probabilities"], axis=1),
              helper.make_node("ArgMax", [x], ["label"], axis=1, keepdims=0)]
    g = helper.make_graph(
        nodes, name,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
         helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        weights)
    m = helper.make_model(g, producer_name="vedette-demo", opset_imports=[helper.make_opsetid("", 15)])
    m.ir_version = 8
    onnx.checker.check_model(m, full_check=True)
    return m


def write(path, header, rows):
    with open(path, "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)


def publish(out, version, model, rows, conditions):
    onnx.save(graph(model, f"digits-{version}"), out / f"digits-{version}.onnx")
    write(out / f"digits-{version}.train.csv", PIXELS + ["condition"],
          ([*map(int, r), c] for r, c in zip(rows, conditions)))
    scores = model.predict_proba(rows / 16.0)
    write(out / f"digits-{version}.expected.csv", ["label"] + [f"p{k}" for k in range(10)],
          ([int(s.argmax()), *(f"{p:.9g}" for p in s)] for s in scores))


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    x, y = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=540, stratify=y, random_state=SEED)

    one = train(train_x, train_y)
    publish(out, 1, one, train_x, ["clean"] * len(train_x))
    both_x, both_y = np.concatenate([train_x, fade(train_x)]), np.concatenate([train_y, train_y])
    two = train(both_x, both_y)
    publish(out, 2, two, both_x, ["clean"] * len(train_x) + ["faded"] * len(train_x))

    write(out / "heldout.csv", PIXELS + ["digit"], ([*map(int, r), int(t)] for r, t in zip(test_x, test_y)))
    accuracy = {
        f"digits-{v}": {"clean": round(m.score(test_x / 16.0, test_y), 4),
                        "faded": round(m.score(fade(test_x) / 16.0, test_y), 4)}
        for v, m in ((1, one), (2, two))}
    report = {"seed": SEED, "scikit_learn": sklearn.__version__, "onnx": onnx.__version__,
              "train_rows": len(train_x), "heldout_rows": len(test_x), "accuracy": accuracy}
    (out / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
