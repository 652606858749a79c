"""What a graph may do, checked in its bytes before any framework loads it, and without one.

A SavedModel may hold operations of the list below, in its graph and in every function; a bundle's manifest may
narrow the list and never widen it. None of them reads or writes a file, opens a connection or runs foreign code,
but for those that save and restore variables, which every SavedModel has and which no signature may reach. An ONNX
file may hold operations of ONNX's own domains and no tensor that lies in another file.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from probrt.runtime.bundle.bundle import Bundle
from probrt.runtime.bundle.manifest import FileRecord
from probrt.runtime.bundle.protobuf import fields, inside, text
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
# Other files that a TensorFlow loader would take for a graph, or for a part of one.
_OTHER_GRAPHS = ("saved_model.pbtxt", "saved_model.cpb")
_DEPTH = 64

_Ops = dict[str, set[str]]


def vet(bundle: Bundle, file: FileRecord) -> None:
    """Checks the digest of a file of a bundle and, if it is a graph, what that may do; BundleError."""
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

    narrowed: the manifest's own, shorter list. Raises BundleError.
    """
    allowed = ALLOWED
    if narrowed is not None:
        wider = sorted({*narrowed} - ALLOWED)
        if wider:
            raise BundleError(f"{where}: its manifest allows {', '.join(wider)}, which probrt does not")
        allowed = ALLOWED & {*narrowed}
    for meta_graph in inside(_message(content, where), 2):
        _vet_meta_graph(meta_graph, allowed, where)


def saved_model_ops(content: bytes) -> list[str]:
    """The operations of a saved_model.pb, functions included, sorted."""
    found: set[str] = set()
    for graph in inside(memoryview(content), 2, 2):
        functions = _functions(graph)
        for node in _nodes(graph):
            found.add(text(node, 2))
        found -= functions.keys()
    return sorted(found)


def vet_onnx(content: bytes, where: str) -> None:
    """Refuses an ONNX file with tensors in other files, or operations of a foreign domain; BundleError."""
    model = _message(content, where)
    for graph in inside(model, 7):
        _vet_onnx_graph(graph, where, _DEPTH)
    for function in inside(model, 25):
        for node in inside(function, 7):
            _vet_onnx_node(node, where, _DEPTH)
    for training in inside(model, 20):
        for graph in (*inside(training, 1), *inside(training, 2)):
            _vet_onnx_graph(graph, where, _DEPTH)


def _message(content: bytes, where: str) -> memoryview:
    message = memoryview(content)
    try:
        for _ in fields(message):
            pass
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from None
    return message


def _functions(graph: memoryview) -> dict[str, memoryview]:
    return {text(signature, 1): function for function in inside(graph, 2, 1) for signature in inside(function, 1)}


def _nodes(graph: memoryview) -> Iterator[memoryview]:
    yield from inside(graph, 1)
    for function in inside(graph, 2, 1):
        yield from inside(function, 3)


def _vet_meta_graph(meta_graph: memoryview, allowed: frozenset[str], where: str) -> None:
    for graph in inside(meta_graph, 2):
        functions = _functions(graph)
        ops: _Ops = {name: set() for name in functions}
        for name, function in functions.items():
            for node in inside(function, 3):
                ops[name] |= _used(node)
        reached = _reached(ops)
        top = {text(node, 1): node for node in inside(graph, 1)}
        for place, used in [("the graph", {op for node in top.values() for op in _used(node)}), *ops.items()]:
            outside = sorted(op for op in used if op not in allowed and op not in functions)
            if outside:
                raise BundleError(f"{where}: holds {', '.join(outside)} (in {place}), which a bundle may not")
        for signature in inside(meta_graph, 5):
            key = text(signature, 1)
            for output in (*inside(signature, 2, 2), *inside(signature, 2, 1)):
                for value in inside(output, 2):
                    tensor = text(value, 1)
                    if not tensor:
                        raise BundleError(
                            f"{where}: its signature {key} has an input or output that is no plain tensor"
                        )
                    used = _behind(tensor, top, reached)
                    if used & SAVING:
                        saving = ", ".join(sorted(used & SAVING))
                        raise BundleError(f"{where}: its signature {key} reaches {saving}, which a signature may not")


def _used(node: memoryview) -> set[str]:
    """A node's operation and the functions that its attributes name, in whatever nesting."""
    found = {text(node, 2)}
    for attribute in inside(node, 5, 2):
        found |= {text(function, 1) for function in inside(attribute, 10)}
        found |= {text(function, 1) for function in inside(attribute, 1, 9)}
    return found - {""}


def _reached(ops: _Ops) -> _Ops:
    """Of each function all operations that it or a function below it holds."""
    found: _Ops = {}
    for name in ops:
        waiting, seen = [name], set[str]()
        while waiting:
            one = waiting.pop()
            if one not in seen:
                seen.add(one)
                waiting += [op for op in ops[one] if op in ops]
        found[name] = {op for one in seen for op in ops[one]}
    return found


def _behind(tensor: str, top: dict[str, memoryview], reached: _Ops) -> set[str]:
    """Operations that a tensor of the top graph depends on."""
    waiting, seen, found = [tensor], set[str](), set[str]()
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in seen or name not in top:
            continue
        seen.add(name)
        for op in _used(top[name]):
            found |= reached.get(op, {op})
        waiting += [bytes(value).decode("utf-8", "replace") for value in inside(top[name], 3)]
    return found


def _vet_onnx_graph(graph: memoryview, where: str, depth: int) -> None:
    if depth == 0:
        raise BundleError(f"{where}: graphs inside graphs, more than {_DEPTH} deep")
    for node in inside(graph, 1):
        _vet_onnx_node(node, where, depth)
    for tensor in (*inside(graph, 5), *inside(graph, 15, 1), *inside(graph, 15, 2)):
        _vet_tensor(tensor, where)


def _vet_onnx_node(node: memoryview, where: str, depth: int) -> None:
    domain = text(node, 7)
    if domain not in _ONNX_DOMAINS:
        raise BundleError(f"{where}: holds {text(node, 4)} of domain {domain}, which a bundle may not")
    for attribute in inside(node, 5):
        for tensor in (*inside(attribute, 5), *inside(attribute, 10)):
            _vet_tensor(tensor, where)
        for sparse in (*inside(attribute, 22), *inside(attribute, 23)):
            for tensor in (*inside(sparse, 1), *inside(sparse, 2)):
                _vet_tensor(tensor, where)
        for graph in (*inside(attribute, 6), *inside(attribute, 11)):
            _vet_onnx_graph(graph, where, depth - 1)


def _vet_tensor(tensor: memoryview, where: str) -> None:
    found: defaultdict[int, list[object]] = defaultdict(list)
    for number, value in fields(tensor):
        found[number].append(value)
    if found[13] or any(location != 0 for location in found[14]):
        raise BundleError(f"{where}: its tensor {text(tensor, 8)} lies in another file, which a bundle may not have")
