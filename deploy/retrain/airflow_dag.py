"""An Airflow 3 DAG that answers a request for retraining.

The run is started by receiver.py --airflow with the event as its conf. It
fetches the sampled rows, trains, and registers the version with the request's
tag; publishing and rolling out are then the business of gates and templates.

Variables of Airflow: vedette_token (a token of role scientist), and whatever
the training needs. Put train.py beside this file: it is called with the event
and logs its run with MLflow.
"""
import datetime
import json
import os
import subprocess
import tempfile

from airflow.sdk import Variable, dag, task

HERE = os.path.dirname(os.path.abspath(__file__))


@dag(
    dag_id="vedette_retrain",
    schedule=None,
    start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["vedette"],
)
def vedette_retrain():
    @task(retries=2)
    def train_and_register(dag_run=None) -> str:
        """Trains and registers; returns the registered version."""
        event = dag_run.conf
        data = event["data"]
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "event.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump(event, file)
            environment = os.environ | {
                "VEDETTE_EVENT": path,
                "MLFLOW_TRACKING_URI": data["tracking"],
                "MLFLOW_TRACKING_TOKEN": Variable.get("vedette_token"),
            }
            # train.py prints the version that it registered as its last line.
            done = subprocess.run(
                ["python3", os.path.join(HERE, "train.py")],
                env=environment, check=True, capture_output=True, text=True,
            )
        return done.stdout.strip().splitlines()[-1]

    @task
    def tag(version: str, dag_run=None) -> None:
        """Says which request the version answers, and that CI may publish it."""
        import mlflow

        data = dag_run.conf["data"]
        client = mlflow.MlflowClient(tracking_uri=data["tracking"])
        client.set_model_version_tag(data["model"], version, data["tag"]["key"], data["tag"]["value"])
        client.set_model_version_tag(data["model"], version, "vedette.publish", "true")

    tag(train_and_register())


vedette_retrain()
