"""The operations that a SavedModel may hold: none reads a file, opens a connection, prints or runs foreign code.

Those that save and restore variables are in every SavedModel; `vet_saved_model` allows them in one form only.
"""

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
_PICTURES = """
    CropAndResize DecodeJpeg DecodePng DecodeRaw ResizeBicubic ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate
    StringLength Substr
"""
_VARIABLES = "DisableCopyOnRead ReadVariableOp VarHandleOp VarIsInitializedOp StringJoin StaticRegexFullMatch"
_SAVING = "AssignVariableOp MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename"

SAVING = frozenset(_SAVING.split())
ALLOWED = frozenset(" ".join((_ELEMENTS, _LAYERS, _SHAPES, _CONTROL, _PICTURES, _VARIABLES, _SAVING)).split())
