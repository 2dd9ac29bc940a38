#!/usr/bin/env python3
"""Takes requests for retraining by webhook and passes them on.

    VEDETTE_SECRET=... receiver.py --run ./train.sh
    VEDETTE_SECRET=... AIRFLOW_TOKEN=... receiver.py --airflow https://airflow.example.org --dag vedette_retrain
    VEDETTE_SECRET=... GITHUB_TOKEN=... receiver.py --github owner/repository

Checks the signature and its age, drops events that it has seen, and answers 202
once the event was handed on; 5xx lets the control plane try again. Python's own
library is all it needs. Put a proxy with TLS before it.
"""
import argparse
import hashlib
import hmac
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

LIMIT = 1 << 20  # bytes of an event
TOLERANCE = 300  # seconds that the clocks of sender and receiver may differ
EVENT_TYPE = "io.vedette.retrain.requested.v1"


def verify(secret: str, header: str, body: bytes, now: float) -> bool:
    """Tells whether the header signs the body, and not long ago."""
    parts = dict(p.split("=", 1) for p in header.split(",") if "=" in p)
    seconds = parts.get("t", "")
    if not seconds.isascii() or not seconds.isdigit() or len(seconds) > 12:
        return False
    want = hmac.new(secret.encode(), seconds.encode() + b"." + body, hashlib.sha256).hexdigest()
    fits = hmac.compare_digest(want.encode(), parts.get("v1", "").encode())
    return fits and abs(now - int(seconds)) <= TOLERANCE


def post(url: str, token: str, payload: dict) -> None:
    request = urllib.request.Request(
        url,
        data=json.dumps(payload).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json", "Authorization": "Bearer " + token},
    )
    with urllib.request.urlopen(request, timeout=30):
        pass


def hand_on(options, event: dict, body: bytes) -> None:
    """Starts the training. An exception means that it was not started."""
    if options.airflow:
        dag = urllib.parse.quote(options.dag, safe="")
        try:
            # The run's id is the event's: the same event starts one run.
            post(f"{options.airflow}/api/v2/dags/{dag}/dagRuns", os.environ["AIRFLOW_TOKEN"],
                 {"dag_run_id": event["id"], "logical_date": None, "conf": event})
        except urllib.error.HTTPError as error:
            if error.code != 409:  # there already
                raise
    elif options.github:
        # At most ten top-level properties are allowed: the event goes as one.
        post(f"https://api.github.com/repos/{options.github}/dispatches", os.environ["GITHUB_TOKEN"],
             {"event_type": "vedette-retrain", "client_payload": {"event": event}})
    else:
        with tempfile.NamedTemporaryFile(suffix=".json", delete=False) as file:
            file.write(body)
        environment = {k: v for k, v in os.environ.items() if k != "VEDETTE_SECRET"}
        subprocess.Popen([options.run], env=environment | {"VEDETTE_EVENT": file.name})


def make_handler(options, secret: str):
    seen = {}  # ids handed on, the oldest first

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isascii() or not length.isdigit() or len(length) > 12 or int(length) > LIMIT:
                return self.answer(413)
            body = self.rfile.read(int(length))
            if not verify(secret, self.headers.get("X-Vedette-Signature", ""), body, time.time()):
                return self.answer(401)
            event = json.loads(body)
            if event.get("type") != EVENT_TYPE:
                return self.answer(422)
            if event["id"] in seen:
                return self.answer(202)
            try:
                hand_on(options, event, body)
            except (OSError, KeyError) as error:
                print("not handed on:", error, file=sys.stderr)
                return self.answer(502)
            seen[event["id"]] = True
            while len(seen) > 1000:
                del seen[next(iter(seen))]
            return self.answer(202)

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:8090", help="address and port (default %(default)s)")
    to = parser.add_mutually_exclusive_group(required=True)
    to.add_argument("--run", help="program to start, with the event in the file $VEDETTE_EVENT")
    to.add_argument("--airflow", help="URL of Airflow 3; its token is in AIRFLOW_TOKEN")
    to.add_argument("--github", help="owner/repository that gets a repository_dispatch; its token is in GITHUB_TOKEN")
    parser.add_argument("--dag", default="vedette_retrain", help="name of Airflow's DAG (default %(default)s)")
    options = parser.parse_args()
    secret = os.environ.get("VEDETTE_SECRET")
    if not secret:
        parser.error("VEDETTE_SECRET is not set")
    host, _, port = options.listen.rpartition(":")
    server = HTTPServer((host, int(port)), make_handler(options, secret))
    print("listening on %s:%d" % server.server_address, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
