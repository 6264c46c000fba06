"""Sends what the service's OpenAPI document allows and what it forbids, and checks that each answer is one that the
document names: openapi.py BASE [--examples 20]

Prints one JSON object, as the scripts beside it do. The same document makes the same requests each time.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    parser.add_argument("--examples", type=int, default=20)
    arguments = parser.parse_args()
    base = arguments.base.rstrip("/")
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.json"
        done = subprocess.run(
            [
                pathlib.Path(sys.executable).with_name("schemathesis"),
                "--config-file", HERE / "schemathesis.toml", "--no-color",
                "run", f"{base}/openapi.json", "--url", base,
                "--phases", "examples,coverage,fuzzing,stateful",
                "--continue-on-failure",
                "--max-examples", str(arguments.examples),
                "--generation-deterministic",
                "--request-timeout", "20",
                "--report", "json", "--report-json-path", report,
            ],
            cwd=folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "serializers", "PYTHONPATH": str(HERE), "COLUMNS": "120"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        told = json.loads(report.read_text()) if report.exists() else {}
    ok = done.returncode == 0
    result = {"ok": ok, "report": told}
    if not ok:
        result["error"] = done.stdout[-8000:]
    print(json.dumps(result), flush=True)
    sys.exit(0 if ok else 1)


main()
