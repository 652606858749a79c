"""Decodes picture files in Triton's Python backend, to the pixels of `probrt predict`.

A model repository's `model.py` imports `TritonPythonModel`, the name that the backend looks for.
"""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from probrt.runtime.bundle.manifest import Input
from probrt.runtime.errors import ImageError
from probrt.runtime.images.decode import read_image


class TritonPythonModel:
    """Answers `image_bytes`, [batch, 1], with `images`, [batch, *input.shape]; NaN for what is no picture."""

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the input's record from the parameter `input` of config.pbtxt."""
        import triton_python_backend_utils as backend

        try:
            backend.Tensor("check", np.zeros(1, np.float32)).as_numpy()
        except TypeError:  # older backends load with NumPy 2, and their outputs are broken
            raise RuntimeError(
                f"this server's Python backend cannot read arrays of NumPy {np.__version__}; "
                "install numpy<2, or use a newer server"
            ) from None
        parameters = json.loads(args["model_config"])["parameters"]
        self._input = msgspec.json.decode(parameters["input"]["string_value"], type=Input)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answers each request by itself."""
        import triton_python_backend_utils as backend

        responses = []
        for request in requests:
            files = backend.get_input_tensor_by_name(request, "image_bytes").as_numpy()
            images = decode_rows([bytes(file) for file in files.reshape(-1)], self._input)
            responses.append(backend.InferenceResponse([backend.Tensor("images", images)]))
        return responses


def decode_rows(files: Sequence[bytes], input: Input) -> npt.NDArray[np.float32]:
    """Decodes files, to float32 [files, *input.shape]; a row is NaN if its file is refused. The sides are fixed."""
    images = np.full((len(files), *(side or 0 for side in input.shape)), np.nan, np.float32)
    for row, file in enumerate(files):
        try:
            images[row] = read_image(file, input)
        except ImageError:
            continue
    return images
