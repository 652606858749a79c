"""Checks from the bytes of a graph what it may do, before a framework loads it and without needing one.

A SavedModel may hold the operations of the list below, in its graph and in every function. The manifest of a bundle
may narrow the list and never widen it. No operation of the list reads or writes a file, opens a connection or runs
foreign code, except those that save and restore variables: every SavedModel has them, and no signature may reach them.
An ONNX file may hold operations of ONNX's own domains, and no tensor that lies in another file.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.bundle.protobuf import find_messages, read_fields, read_text
from probrt.runtime.errors import BundleError

_ELEMENTS = """
    Abs Acos Acosh Add AddN AddV2 All Any ApproximateEqual ArgMax ArgMin Asin Asinh Atan Atan2 Atanh BitwiseAnd
    BitwiseOr BitwiseXor Bucketize Cast Ceil ClipByValue Cos Cosh Cumprod Cumsum CumulativeLogsumexp Digamma Div
    DivNoNan Equal Erf Erfc Erfinv Exp Expm1 Floor FloorDiv FloorMod Greater GreaterEqual Igamma Igammac Inv Invert
    IsFinite IsInf IsNan LeftShift Less LessEqual Lgamma Log Log1p LogicalAnd LogicalNot LogicalOr Max Maximum Mean
    Min Minimum Mod Mul MulNoNan Ndtri Neg NextAfter NotEqual Pow Prod RealDiv Reciprocal RightShift Rint Round Rsqrt
    Select SelectV2 Sigmoid Sign Sin Sinh Sqrt Square SquaredDifference Sub Sum Tan Tanh TruncateDiv TruncateMod Xdivy
    Xlog1py Xlogy Betainc Polygamma Zeta
"""
_LAYERS = """
    AvgPool AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BiasAdd Conv2D Conv2DBackpropInput
    Conv3D Conv3DBackpropInputV2 DepthToSpace DepthwiseConv2dNative DepthwiseConv2dNativeBackpropInput Dilation2D
    Einsum Elu FusedBatchNormV3 L2Loss LRN LeakyRelu LogSoftmax MatMul MaxPool MaxPool3D MaxPoolV2 Relu Relu6 Selu
    Softmax Softplus Softsign SpaceToBatchND SpaceToDepth
"""
_SHAPES = """
    BroadcastArgs BroadcastTo ConcatV2 Const EnsureShape ExpandDims Fill Gather GatherNd GatherV2 Identity IdentityN
    InvertPermutation LinSpace ListDiff MatrixBandPart MatrixDiagV3 MirrorPad NoOp OneHot OnesLike Pack Pad PadV2
    Placeholder PlaceholderWithDefault PreventGradient Range Rank Reshape ReverseSequence ReverseV2 Roll ScatterNd
    Shape ShapeN Size Slice Snapshot Split SplitV Squeeze StopGradient StridedSlice TensorScatterUpdate Tile TopKV2
    Transpose Unique UniqueV2 Unpack UnravelIndex UnsortedSegmentSum Where ZerosLike
"""
_CONTROL = """
    Assert Case EmptyTensorList Enter Exit If LoopCond Merge NextIteration PartitionedCall StatefulPartitionedCall
    StatelessCase StatelessIf StatelessWhile Switch TensorListConcatV2 TensorListElementShape TensorListFromTensor
    TensorListGather TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack TensorListReserve
    TensorListResize TensorListSetItem TensorListSplit TensorListStack While
"""
_PICTURES = "CropAndResize DecodeJpeg DecodePng ResizeBicubic ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate"
_VARIABLES = "DisableCopyOnRead ReadVariableOp VarHandleOp VarIsInitializedOp StringJoin StaticRegexFullMatch"
_SAVING = "AssignVariableOp MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename"

SAVING = frozenset(_SAVING.split())
ALLOWED = frozenset(" ".join((_ELEMENTS, _LAYERS, _SHAPES, _CONTROL, _PICTURES, _VARIABLES, _SAVING)).split())
_ONNX_DOMAINS = ("", "ai.onnx", "com.microsoft")
# Other files that a TensorFlow loader would read as a graph or as a part of one.
_OTHER_GRAPHS = ("saved_model.pbtxt", "saved_model.cpb")
_DEPTH = 64

_Ops = dict[str, set[str]]


def vet(bundle: Bundle, file: FileRecord) -> None:
    """Checks the digest of a file and, if it is a graph, what the graph may do. Raises BundleError."""
    if PurePosixPath(file.path).name in _OTHER_GRAPHS:
        raise BundleError(f"{file.path}: a SavedModel in a form that a bundle may not have")
    try:
        if PurePosixPath(file.path).name == "saved_model.pb":
            vet_saved_model(bundle.read(file), file.path, bundle.manifest.ops)
        elif file.format == "onnx":
            vet_onnx(bundle.read(file), file.path)
        else:
            bundle.check(file)
    except BundleError as error:
        raise BundleError(str(error) if file.path in str(error) else f"{file.path}: {error}") from None


def vet_saved_model(content: bytes, where: str, narrowed: list[str] | None = None) -> None:
    """Refuses a saved_model.pb with an operation outside the list, or with a signature that saves or restores.

    narrowed: the shorter list of the manifest. Raises BundleError.
    """
    allowed = ALLOWED
    if narrowed is not None:
        wider = sorted({*narrowed} - ALLOWED)
        if wider:
            raise BundleError(f"{where}: its manifest allows {', '.join(wider)}, which probrt does not allow")
        allowed = ALLOWED & {*narrowed}
    for meta_graph in find_messages(_parse(content, where), 2):
        _vet_meta_graph(meta_graph, allowed, where)


def saved_model_ops(content: bytes) -> list[str]:
    """Returns the operations of a saved_model.pb and of its functions, sorted."""
    ops: set[str] = set()
    for graph in find_messages(memoryview(content), 2, 2):
        functions = _read_functions(graph)
        for node in _iterate_nodes(graph):
            ops.add(read_text(node, 2))
        ops -= functions.keys()
    return sorted(ops)


def vet_onnx(content: bytes, where: str) -> None:
    """Refuses an ONNX file with tensors in other files or operations of a foreign domain. Raises BundleError."""
    model = _parse(content, where)
    for graph in find_messages(model, 7):
        _vet_onnx_graph(graph, where, _DEPTH)
    for function in find_messages(model, 25):
        for node in find_messages(function, 7):
            _vet_onnx_node(node, where, _DEPTH)
    for training in find_messages(model, 20):
        for graph in (*find_messages(training, 1), *find_messages(training, 2)):
            _vet_onnx_graph(graph, where, _DEPTH)


def _parse(content: bytes, where: str) -> memoryview:
    message = memoryview(content)
    try:
        for _ in read_fields(message):
            pass
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from None
    return message


def _read_functions(graph: memoryview) -> dict[str, memoryview]:
    return {
        read_text(signature, 1): function
        for function in find_messages(graph, 2, 1)
        for signature in find_messages(function, 1)
    }


def _iterate_nodes(graph: memoryview) -> Iterator[memoryview]:
    yield from find_messages(graph, 1)
    for function in find_messages(graph, 2, 1):
        yield from find_messages(function, 3)


def _vet_meta_graph(meta_graph: memoryview, allowed: frozenset[str], where: str) -> None:
    for graph in find_messages(meta_graph, 2):
        functions = _read_functions(graph)
        ops: _Ops = {name: set() for name in functions}
        for name, function in functions.items():
            for node in find_messages(function, 3):
                ops[name] |= _read_node_ops(node)
        reached = _expand_functions(ops)
        top = {read_text(node, 1): node for node in find_messages(graph, 1)}
        for place, used in [("the graph", {op for node in top.values() for op in _read_node_ops(node)}), *ops.items()]:
            outside = sorted(op for op in used if op not in allowed and op not in functions)
            if outside:
                raise BundleError(f"{where}: holds {', '.join(outside)} (in {place}), which a bundle may not hold")
        for signature in find_messages(meta_graph, 5):
            key = read_text(signature, 1)
            for output in (*find_messages(signature, 2, 2), *find_messages(signature, 2, 1)):
                for value in find_messages(output, 2):
                    tensor = read_text(value, 1)
                    if not tensor:
                        raise BundleError(
                            f"{where}: its signature {key} has an input or output that is no plain tensor"
                        )
                    used = _find_ops_behind(tensor, top, reached)
                    if used & SAVING:
                        saving = ", ".join(sorted(used & SAVING))
                        raise BundleError(
                            f"{where}: its signature {key} reaches {saving}, which a signature may not reach"
                        )


def _read_node_ops(node: memoryview) -> set[str]:
    """Returns the operation of a node and the functions that its attributes name, at any depth."""
    names = {read_text(node, 2)}
    for attribute in find_messages(node, 5, 2):
        names |= {read_text(function, 1) for function in find_messages(attribute, 10)}
        names |= {read_text(function, 1) for function in find_messages(attribute, 1, 9)}
    return names - {""}


def _expand_functions(ops: _Ops) -> _Ops:
    """Returns for each function all operations of it and of the functions that it calls, directly or not."""
    reached: _Ops = {}
    for name in ops:
        waiting, seen = [name], set[str]()
        while waiting:
            function = waiting.pop()
            if function not in seen:
                seen.add(function)
                waiting += [op for op in ops[function] if op in ops]
        reached[name] = {op for function in seen for op in ops[function]}
    return reached


def _find_ops_behind(tensor: str, top: dict[str, memoryview], reached: _Ops) -> set[str]:
    """Returns the operations that a tensor of the top graph depends on."""
    waiting, seen, ops = [tensor], set[str](), set[str]()
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in seen or name not in top:
            continue
        seen.add(name)
        for op in _read_node_ops(top[name]):
            ops |= reached.get(op, {op})
        waiting += [bytes(value).decode("utf-8", "replace") for value in find_messages(top[name], 3)]
    return ops


def _vet_onnx_graph(graph: memoryview, where: str, depth: int) -> None:
    if depth == 0:
        raise BundleError(f"{where}: graphs inside graphs, more than {_DEPTH} deep")
    for node in find_messages(graph, 1):
        _vet_onnx_node(node, where, depth)
    for tensor in (*find_messages(graph, 5), *find_messages(graph, 15, 1), *find_messages(graph, 15, 2)):
        _vet_tensor(tensor, where)


def _vet_onnx_node(node: memoryview, where: str, depth: int) -> None:
    domain = read_text(node, 7)
    if domain not in _ONNX_DOMAINS:
        raise BundleError(f"{where}: holds {read_text(node, 4)} of domain {domain}, which a bundle may not hold")
    for attribute in find_messages(node, 5):
        for tensor in (*find_messages(attribute, 5), *find_messages(attribute, 10)):
            _vet_tensor(tensor, where)
        for sparse in (*find_messages(attribute, 22), *find_messages(attribute, 23)):
            for tensor in (*find_messages(sparse, 1), *find_messages(sparse, 2)):
                _vet_tensor(tensor, where)
        for graph in (*find_messages(attribute, 6), *find_messages(attribute, 11)):
            _vet_onnx_graph(graph, where, depth - 1)


def _vet_tensor(tensor: memoryview, where: str) -> None:
    values: defaultdict[int, list[object]] = defaultdict(list)
    for field, value in read_fields(tensor):
        values[field].append(value)
    # Field 13 is `external_data`, field 14 `data_location`, whose default 0 is this file.
    if values[13] or any(location != 0 for location in values[14]):
        raise BundleError(
            f"{where}: its tensor {read_text(tensor, 8)} lies in another file, which a bundle may not have"
        )
