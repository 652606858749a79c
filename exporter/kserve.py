"""Manifests for KServe: an InferenceService that serves a model from a volume, and the runtime that it needs."""

from __future__ import annotations

import re

# Where the volume claim `models` holds what an export writes into `artifacts/`.
_VOLUME = "pvc://models"
_TRITON = """apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {service}
spec:
  predictor:
    model:
      modelFormat:
        name: triton
      runtime: kserve-tritonserver
      protocolVersion: v2
      storageUri: {volume}/triton
      resources:
        requests: {{cpu: "1", memory: 2Gi}}
        limits: {{cpu: "4", memory: 8Gi}}
"""
# KServe brings no runtime for OpenVINO Model Server. {{{{.Name}}}} becomes the name of the InferenceService.
_OPENVINO = """apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: openvino-model-server
spec:
  supportedModelFormats:
    - name: onnx
      version: "1"
  protocolVersions: [v2]
  multiModel: false
  containers:
    - name: kserve-container
      image: openvino/model_server:2025.0
      args:
        - --model_name={{{{.Name}}}}
        - --model_path=/mnt/models
        - '--model_version_policy={{"all": {{}}}}'
        - --rest_port=8080
      ports:
        - containerPort: 8080
          protocol: TCP
      resources:
        requests: {{cpu: "1", memory: 1Gi}}
        limits: {{cpu: "4", memory: 4Gi}}
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {service}
spec:
  predictor:
    model:
      modelFormat:
        name: onnx
        version: "1"
      runtime: openvino-model-server
      protocolVersion: v2
      storageUri: {volume}/openvino/{model}
"""


def make_triton_manifest(model: str) -> str:
    """Returns the YAML that serves a model repository with KServe's own runtime for Triton."""
    return _TRITON.format(service=make_service_name(model), volume=_VOLUME)


def make_openvino_manifest(model: str) -> str:
    """Returns the YAML that serves a model with OpenVINO Model Server."""
    return _OPENVINO.format(service=make_service_name(model), volume=_VOLUME, model=model)


def make_service_name(model: str) -> str:
    """Returns a name that Kubernetes takes for a service: small letters, digits and `-`, a letter first."""
    name = re.sub("[^a-z0-9]+", "-", model.lower()).strip("-")
    return (name if name[:1].isalpha() else f"model-{name}")[:63].rstrip("-")
