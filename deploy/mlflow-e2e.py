#!/usr/bin/env python3
"""Drives a Vedette control plane with the stock MLflow client, 2.x or 3.x.

    pip install "mlflow>=2.12" scikit-learn onnx onnxruntime skl2onnx
    MLFLOW_TRACKING_URI=http://127.0.0.1:8480 MLFLOW_TRACKING_TOKEN=vop1_... deploy/mlflow-e2e.py

The token needs role scientist ("vedette token create NAME --role scientist").
Everything is made under names of its own, so it can run on a server in use.
Exits with 77 and the reason where MLflow is not installed or no server is named.
"""

import os
import pathlib
import sys
import tempfile
import uuid

SKIPPED = 77


def skip(reason):
    print(f"SKIP: {reason}")
    sys.exit(SKIPPED)


for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"):
    if not os.environ.get(variable):
        skip(f"{variable} is not set: start a control plane and name it (see the head of this file)")
try:
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
except ImportError as missing:
    skip(f'{missing}: pip install "mlflow>=2.12" scikit-learn onnx onnxruntime skl2onnx')

THREE = int(mlflow.__version__.split(".")[0]) >= 3
TAG = uuid.uuid4().hex[:8]
done = 0


def check(what, condition):
    """Ends the program where something is not as it should be."""
    global done
    if not condition:
        print(f"FAIL: {what}")
        sys.exit(1)
    done += 1
    print(f"ok    {what}")


def refused(what, call):
    """Expects a call to be refused for what it says, not for a fault of the server."""
    try:
        call()
    except MlflowException as error:
        check(f"{what} is refused ({error.error_code})", error.error_code != "INTERNAL_ERROR")
        return
    check(f"{what} is refused", False)


def log_runs(client, experiment):
    """set_experiment, start_run, log_*, set_tags, data sets."""
    runs = []
    for depth in (2, 3, 4):
        with mlflow.start_run(run_name=f"depth {depth}") as run:
            runs.append(run.info.run_id)
            mlflow.log_params({"depth": depth, "seed": 7})
            mlflow.log_param("rate", 0.1)
            for step in range(5):
                mlflow.log_metrics({"loss": 1 / (depth + step), "accuracy": 0.8 + depth / 50}, step=step)
            mlflow.set_tags({"kind": "tree", "e2e": TAG})
            mlflow.set_tag("temporary", "yes")
            mlflow.delete_tag("temporary")
            mlflow.log_dict({"depth": depth}, "conf/config.json")
            mlflow.log_text("notes", "notes.txt")
    run = client.get_run(runs[1])
    check("parameters come back", run.data.params == {"depth": "3", "seed": "7", "rate": "0.1"})
    check("the newest value of a metric comes back", abs(run.data.metrics["loss"] - 1 / 7) < 1e-12)
    check("a deleted tag is gone", "temporary" not in run.data.tags and run.data.tags["kind"] == "tree")
    check("the run has ended", run.info.status == "FINISHED" and run.info.end_time >= run.info.start_time)
    check("the run lies in its experiment", run.info.experiment_id == experiment)
    return runs


def search(client, experiment, runs):
    """search_runs with filter, order and pages; search_experiments; histories."""
    found = client.search_runs(
        [experiment], "metrics.accuracy > 0.85 and params.depth != '2'", order_by=["metrics.accuracy DESC"])
    check("search_runs filters and orders", [r.info.run_id for r in found] == [runs[2], runs[1]])
    pages, token = [], None
    while True:
        page = client.search_runs([experiment], f"tags.e2e = '{TAG}'", max_results=1, page_token=token)
        pages += [r.info.run_id for r in page]
        token = page.token
        if not token:
            break
    check("search_runs goes through pages", sorted(pages) == sorted(runs))
    names = [e.name for e in client.search_experiments(filter_string=f"name LIKE '%{TAG}'")]
    check("search_experiments finds by name", names == [f"e2e {TAG}"])
    history = client.get_metric_history(runs[0], "loss")
    check("a metric has its history", [m.step for m in history] == [0, 1, 2, 3, 4])
    both = [client.get_run(r).data.params["depth"] for r in runs[:2]]
    check("runs can be compared", both == ["2", "3"])
    refused("a malformed filter", lambda: client.search_runs([experiment], "metrics.accuracy >>"))
    refused("a changed parameter", lambda: client.log_param(runs[0], "depth", 9))


def artifacts(client, run):
    """log_artifact(s), list, download, and the way a large file takes."""
    with tempfile.TemporaryDirectory() as folder:
        large = pathlib.Path(folder) / "large.bin"
        large.write_bytes(os.urandom(1 << 20) * 32)
        (pathlib.Path(folder) / "ü mlaut.txt").write_text("names")
        client.log_artifacts(run, folder, "many")
        names = sorted(f.path for f in client.list_artifacts(run, "many"))
        check("log_artifacts and list_artifacts", names == ["many/large.bin", "many/ü mlaut.txt"])
        local = client.download_artifacts(run, "many", folder)
        check("what was logged is downloaded", pathlib.Path(local, "large.bin").read_bytes() == large.read_bytes())
    check("log_dict comes back", mlflow.artifacts.load_dict(f"{client.get_run(run).info.artifact_uri}/conf/config.json") == {"depth": 2})


def models(client):
    """log_model of scikit-learn and ONNX with registered_model_name."""
    try:
        from skl2onnx import to_onnx
        from sklearn.datasets import load_iris
        from sklearn.linear_model import LogisticRegression
        import mlflow.onnx
        import mlflow.sklearn
    except ImportError as missing:
        print(f"skip  models: {missing}")
        return
    rows, labels = load_iris(return_X_y=True)
    rows = rows.astype("float32")
    model = LogisticRegression(max_iter=500).fit(rows, labels)
    graph = to_onnx(model, rows[:1])
    name = f"e2e-{TAG}"
    place = "name" if THREE else "artifact_path"
    with mlflow.start_run(run_name="models") as run:
        mlflow.log_metric("accuracy", model.score(rows, labels))
        mlflow.sklearn.log_model(model, registered_model_name=name, **{place: "pickled"})
        logged = mlflow.onnx.log_model(graph, registered_model_name=name, input_example=rows[:2], **{place: "net"})
    pickle, net = client.get_model_version(name, "1"), client.get_model_version(name, "2")
    check("a pickle is registered, is not deployable, and says so",
          pickle.status == "READY" and pickle.tags["vedette.deployable"] == "false" and "pickle" in pickle.status_message)
    check("an ONNX model is deployable", net.tags["vedette.deployable"] == "true")
    check("both versions know their run", [pickle.run_id, net.run_id] == [run.info.run_id] * 2)
    loaded = mlflow.onnx.load_model(f"models:/{name}/2")
    check("the registered graph is the logged one", loaded.SerializeToString() == graph.SerializeToString())
    if THREE:
        found = client.get_logged_model(logged.model_id)
        check("a logged model of 3.x is ready and knows its run",
              str(found.status) == "READY" and found.source_run_id == run.info.run_id)
        search_models = mlflow.search_logged_models(
            experiment_ids=[run.info.experiment_id], filter_string="metrics.accuracy > 0.5", output_format="list")
        check("search_logged_models finds it", logged.model_id in [m.model_id for m in search_models])
        outputs = client.get_run(run.info.run_id).outputs.model_outputs
        check("the run names the models it made", logged.model_id in [o.model_id for o in outputs])


def registry(client, run):
    """Registered models and versions: stages, aliases, tags, search, deletion."""
    name = f"registry-{TAG}"
    client.create_registered_model(name, tags={"team": "e2e"}, description="made by mlflow-e2e.py")
    refused("a name that is taken", lambda: client.create_registered_model(name))
    source = client.get_run(run).info.artifact_uri + "/conf"
    for _ in range(3):
        client.create_model_version(name, source, run_id=run)
    refused("a source on a disk", lambda: client.create_model_version(name, "file:///etc"))
    client.transition_model_version_stage(name, "1", "Production")
    client.transition_model_version_stage(name, "2", "Staging")
    client.transition_model_version_stage(name, "2", "Production", archive_existing_versions=True)
    stages = {v.version: v.current_stage for v in client.search_model_versions(f"name='{name}'")}
    check("stages move and archive", {str(k): v for k, v in stages.items()} == {"1": "Archived", "2": "Production", "3": "None"})
    latest = client.get_latest_versions(name, ["Production"])
    check("get_latest_versions", [str(v.version) for v in latest] == ["2"])
    client.set_registered_model_alias(name, "champion", "2")
    check("an alias leads to its version", str(client.get_model_version_by_alias(name, "champion").version) == "2")
    client.delete_registered_model_alias(name, "champion")
    refused("an alias that is gone", lambda: client.get_model_version_by_alias(name, "champion"))
    client.set_model_version_tag(name, "3", "k", "v")
    client.delete_model_version_tag(name, "3", "k")
    client.set_registered_model_tag(name, "k", "v")
    client.update_model_version(name, "3", description="the third")
    check("a version is described", client.get_model_version(name, "3").description == "the third")
    check("get_model_version_download_uri", client.get_model_version_download_uri(name, "3") == source)
    found = client.search_registered_models(filter_string=f"name = '{name}'")
    check("search_registered_models", [m.name for m in found] == [name] and found[0].tags["k"] == "v")
    copied = client.copy_model_version(f"models:/{name}/3", name + "-copied")
    check("copy_model_version", client.get_model_version(copied.name, copied.version).run_id == run)
    client.rename_registered_model(name, name + "-renamed")
    client.delete_model_version(name + "-renamed", "1")
    client.delete_registered_model(name + "-renamed")
    refused("a model that is deleted", lambda: client.get_registered_model(name + "-renamed"))


def main():
    print(f"mlflow {mlflow.__version__} on Python {sys.version.split()[0]} against {mlflow.get_tracking_uri()}")
    client = MlflowClient()
    experiment = mlflow.set_experiment(f"e2e {TAG}").experiment_id
    runs = log_runs(client, experiment)
    search(client, experiment, runs)
    artifacts(client, runs[0])
    models(client)
    registry(client, runs[0])
    client.delete_run(runs[0])
    check("a deleted run is not found", runs[0] not in [r.info.run_id for r in client.search_runs([experiment])])
    client.restore_run(runs[0])
    client.delete_experiment(experiment)
    print(f"{done} checks passed")


if __name__ == "__main__":
    main()
