"""Packages of optional extras, each set in a folder of its own: real ones, at fixed versions, for the stress tests."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".cache" / "packages"
RAY = ("ray==2.60.0", "fsspec==2026.9.0", "filelock==4.3.1", "msgpack==1.2.4", "pyyaml==6.0.4")

MLFLOW = (
    "mlflow-skinny==3.17.2", "anyio==4.16.0", "cachetools==7.3.3", "cloudpickle==3.1.3", "databricks-sdk==0.162.0",
    "fastapi==0.165.0", "GitPython==3.2.1", "importlib_metadata==9.1.0", "opentelemetry-api==1.45.2",
    "opentelemetry-proto==1.45.2", "opentelemetry-sdk==1.45.2", "opentelemetry-semantic-conventions==0.66b2",
    "python-dotenv==1.2.4", "PyYAML==6.0.4", "sqlparse==0.6.1", "starlette==1.10.0", "uvicorn==0.54.0",
    "annotated-doc==0.0.7", "gitdb==4.0.12", "google-auth==2.63.0", "h11==0.16.0", "zipp==4.1.2", "smmap==5.0.3",
)  # fmt: skip
HUB = (
    "huggingface_hub==2.4.0", "filelock==4.3.1", "fsspec==2026.9.0", "httpx2==2.16.2", "httpcore2==2.16.2",
    "PyYAML==6.0.4", "tqdm==4.70.1", "anyio==4.16.0", "truststore==0.10.5", "h11==0.16.0",
)  # fmt: skip

KUBERNETES = ("kubernetes-validate==1.37.0", "PyYAML==6.0.4", "importlib_resources==7.1.0")

# The readers of the metadata of TFLite files, and the tasks that run them. The newest MediaPipe lacks a module that its
# reader imports, and the tasks of the older one do not run with today's packages.
TFLITE_SUPPORT = ("tflite-support==0.4.4",)
MEDIAPIPE = ("mediapipe==0.10.21", "opencv-python-headless==5.0.0.93")
MEDIAPIPE_TASKS = ("mediapipe==1.2.3", "opencv-python-headless==5.0.0.93")

# fsspec's driver for S3, and a server that stands in for it.
S3 = (
    "s3fs==2026.9.0", "aiobotocore==3.10.0", "aiohttp==3.14.5", "aiohappyeyeballs==2.7.1", "aioitertools==0.13.0",
    "aiosignal==1.4.0", "frozenlist==1.8.0", "multidict==7.2.1", "propcache==0.5.4", "yarl==1.25.1", "wrapt==2.5.2",
    "botocore==1.43.117", "boto3==1.43.117", "s3transfer==0.19.3", "jmespath==1.1.0", "moto==5.2.5", "Flask==3.1.3",
    "Werkzeug==3.1.9", "flask-cors==6.0.5", "responses==0.26.3", "xmltodict==1.0.4", "blinker==1.9.0",
    "itsdangerous==2.2.0", "py-partiql-parser==0.6.3", *RAY,
)  # fmt: skip

BEAM = (
    "apache-beam==2.77.0", "beartype==0.22.9", "fastavro==1.13.1", "fasteners==0.20", "grpcio==1.85.3",
    "httplib2==0.32.1", "jsonpickle==4.1.4", "objsize==0.7.1", "proto-plus==1.29.0", "protobuf==6.33.6",
    "pymongo==4.20.1", "dnspython==2.9.2", "pytz==2026.6", "PyYAML==6.0.4", "sortedcontainers==2.4.0",
    "zstandard==0.25.0", "cloudpickle==3.1.3", "fsspec==2026.9.0",
)  # fmt: skip


def install(*pins: str) -> Path:
    """Returns a folder with the packages, which pip fills at the first call; their dependencies are among the pins."""
    folder = CACHE / f"{pins[0].replace('==', '-')}-{hashlib.sha256(' '.join(pins).encode()).hexdigest()[:8]}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            done = subprocess.run(
                [*command, "--target", f"{scratch}/it", *pins], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            shutil.move(f"{scratch}/it", folder)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Returns the environment of a process that imports the packages and finds their programs too."""
    modules = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(folder)])
    return os.environ | {"PYTHONPATH": modules, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}
