"""Convolutions in one, two and three dimensions, in plain ops that every export format has.

Kernels are always [*window, in / groups, out]. Grouped kernels are split and the results joined:
grouped 3-D convolutions exist neither on the CPU nor in TFLite. Dilated ones become one kernel with zeros.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Sides = tuple[int, ...]


def convolve(inputs: tf.Tensor, kernel: tf.Tensor, *, strides: Sides, dilation: Sides, padding: str) -> tf.Tensor:
    """[batch, *space, in] and [*window, in / groups, out] → [batch, *space, out]; "causal" pads before."""
    if padding == "causal":
        reach = dilation[0] * (kernel.shape[0] - 1)
        inputs, padding = tf.pad(inputs, [[0, 0], [reach, 0], [0, 0]]), "valid"
    inputs, padding = _pad_dilated(inputs, kernel, dilation, padding)
    groups = inputs.shape[-1] // kernel.shape[-2]
    if len(strides) == 3 and max(dilation) > 1:
        kernel, groups = _join_groups(kernel, groups), 1
    if groups == 1:
        return _convolve_group(inputs, kernel, strides, dilation, padding.upper())
    parts = zip(tf.split(inputs, groups, -1), tf.split(kernel, groups, -1), strict=True)
    return tf.concat([_convolve_group(part, own, strides, dilation, padding.upper()) for part, own in parts], -1)


def convolve_transposed(
    inputs: tf.Tensor, kernel: tf.Tensor, *, strides: Sides, dilation: Sides, padding: str, extra: int | None
) -> tf.Tensor:
    """The transpose of a convolution, [batch, *space, in] → [batch, *lengths, out]; see `transposed_output_length`."""
    groups = inputs.shape[-1] // kernel.shape[-2]
    if len(strides) == 3 and max(dilation) > 1:
        kernel, groups = _join_groups(kernel, groups), 1
    parts = zip(tf.split(inputs, groups, -1), tf.split(kernel, groups, -1), strict=True)
    if any(side > 1 for side in dilation):
        outputs = [_transpose_dilated(part, own, dilation, padding) for part, own in parts]
    else:
        outputs = [_transpose_strided(part, own, strides, padding, extra) for part, own in parts]
    return outputs[0] if groups == 1 else tf.concat(outputs, -1)


def convolve_depthwise(
    inputs: tf.Tensor, kernel: tf.Tensor, *, strides: Sides, dilation: Sides, padding: str
) -> tf.Tensor:
    """[batch, height, width, in] and [*window, 1, in * multiplier] → [batch, height, width, in * multiplier]."""
    inputs, padding = _pad_dilated(inputs, kernel, dilation, padding)
    channels = inputs.shape[-1]
    shaped = tf.reshape(kernel, [*kernel.shape[:2], channels, kernel.shape[-1] // channels])
    return tf.nn.depthwise_conv2d(inputs, shaped, [1, *strides, 1], padding.upper(), dilations=list(dilation))


def output_length(size: int | None, *, window: int, stride: int, dilation: int, padding: str) -> int | None:
    """Returns the positions along one side after a convolution; None if size is None."""
    if size is None:
        return None
    return -(-size // stride) if padding != "valid" else (size - dilation * (window - 1) - 1) // stride + 1


def transposed_output_length(
    size: Any, *, window: int, stride: int, dilation: int, padding: str, extra: int | None
) -> Any:
    """Returns the positions along one side after a transposed convolution; size is a number, a tensor or None.

    extra: Keras's output_padding.
    """
    if size is None:
        return None
    reach = dilation * (window - 1) + 1
    if extra is None:
        return size * stride if padding == "same" else size * stride + max(reach - stride, 0)
    return (size - 1) * stride + reach - (2 * (reach // 2) if padding == "same" else 0) + extra


def _pad_dilated(inputs: tf.Tensor, kernel: tf.Tensor, dilation: Sides, padding: str) -> tuple[tf.Tensor, str]:
    """Pads a dilated "same" convolution beforehand: ONNX Runtime refuses to on maps of dynamic size."""
    if padding != "same" or max(dilation) == 1:
        return inputs, padding
    reaches = [by * (side - 1) for by, side in zip(dilation, kernel.shape, strict=False)]
    pads = [[reach // 2, reach - reach // 2] for reach in reaches]
    return tf.pad(inputs, [[0, 0], *pads, [0, 0]]), "valid"


def _join_groups(kernel: tf.Tensor, groups: int) -> tf.Tensor:
    """Returns one kernel [*window, in, out] that does what the groups do: zeros between the channels of two groups.

    TensorFlow's TFLite gives wrong answers for two dilated 3-D convolutions side by side (seen in 2.19).
    """
    if groups == 1:
        return kernel
    parts = tf.split(kernel, groups, -1)
    rows = [
        tf.concat([part if row == column else tf.zeros_like(part) for column, part in enumerate(parts)], -1)
        for row in range(groups)
    ]
    return tf.concat(rows, -2)


def _convolve_group(inputs: tf.Tensor, kernel: tf.Tensor, strides: Sides, dilation: Sides, padding: str) -> tf.Tensor:
    if len(strides) == 1:
        return tf.nn.conv1d(inputs, kernel, strides[0], padding, dilations=dilation[0])
    if len(strides) == 2:
        return tf.nn.conv2d(inputs, kernel, list(strides), padding, dilations=list(dilation))
    return tf.nn.conv3d(inputs, kernel, [1, *strides, 1], padding, dilations=[1, *dilation, 1])


def _transpose_strided(
    inputs: tf.Tensor, kernel: tf.Tensor, strides: Sides, padding: str, extra: int | None
) -> tf.Tensor:
    rank = len(strides)
    op = (tf.nn.conv1d_transpose, tf.nn.conv2d_transpose, tf.nn.conv3d_transpose)[rank - 1]
    swapped = tf.transpose(kernel, [*range(rank), rank + 1, rank])
    dynamic = tf.shape(inputs)
    sizes = [dynamic[i + 1] if size is None else size for i, size in enumerate(inputs.shape[1:-1])]
    # No input reaches the extra positions of a valid transpose; ONNX Runtime refuses to compute them.
    window = kernel.shape[:rank]
    if padding == "valid":
        pads = [max(step - side, 0) if extra is None else extra for side, step in zip(window, strides, strict=True)]
        lengths = [(size - 1) * step + side for size, side, step in zip(sizes, window, strides, strict=True)]
    else:
        pads = [0] * rank
        sides = zip(sizes, window, strides, strict=True)
        lengths = [
            transposed_output_length(size, window=side, stride=step, dilation=1, padding=padding, extra=extra)
            for size, side, step in sides
        ]
    outputs = op(inputs, swapped, tf.stack([dynamic[0], *lengths, kernel.shape[-1]]), list(strides), padding.upper())
    return tf.pad(outputs, [[0, 0], *([0, pad] for pad in pads), [0, 0]]) if any(pads) else outputs


def _transpose_dilated(inputs: tf.Tensor, kernel: tf.Tensor, dilation: Sides, padding: str) -> tf.Tensor:
    """Transposes at stride 1, as a convolution with the kernel reversed, which converts when dilated."""
    rank = len(dilation)
    pads = [[0, 0]]
    for side, by in zip(kernel.shape[:rank], dilation, strict=True):
        reach = by * (side - 1)
        pads.append([reach, reach] if padding == "valid" else [reach - reach // 2, reach // 2])
    padded = tf.pad(inputs, [*pads, [0, 0]])
    return _convolve_group(padded, tf.reverse(kernel, list(range(rank))), (1,) * rank, dilation, "VALID")
