"""The schema of `probrt.json`; reading it needs no ML framework."""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

FORMAT: Final = 1
NAME = "probrt.json"
SIGNATURE = "probrt.sig"
ANSWERS: Final = "answers.json"
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z"
MAX_BYTES = 1 << 20
QUANTITIES: Final = ("mean", "total", "aleatoric", "epistemic")

# The head-like name of what is known of an image beside its heads: `novelty.score` and `novelty.p_value`.
NOVELTY: Final = "novelty"
NOVELTY_QUANTITIES: Final = ("score", "p_value")
NOVELTY_MAP: Final = "map"

ROW_WORDS: Final = ("label", "probability", "set", "interval", "coverage", "overlay")

Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
# Beyond this a calibration leaves no answer: all classes alike, or all certain.
CalibrationFactor = Annotated[float, Meta(ge=0.01, le=100)]
Seed = Annotated[int, Meta(ge=0, le=2**31 - 1)]
HeadName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Format = Literal["savedmodel", "tflite", "onnx"]
Variant = Literal["mean", "draws", "sampled"]
Precision = Literal["float32", "float16", "dynamic", "int8"]
# That of a run: of the files, or of the arithmetic that an engine does with float32 files.
RunPrecision = Literal["float32", "float16", "dynamic", "int8", "bfloat16"]
Combine = Literal["variance", "entropy"]
Kind = Literal["class", "binary", "real"]
COMBINE_OF: Final[dict[Kind, Combine]] = {"class": "entropy", "binary": "entropy", "real": "variance"}


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """A strict object of the manifest: an unknown key is an error."""


class ModelRecord(Record, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=MODEL_NAME)]
    version: Positive


class Input(Record, frozen=True, kw_only=True):
    """The input `images` of a graph: raw values, float32, batch first, channels last.

    shape: without the batch: `[height, width, channels]`, `[length, channels]`, `[depth, height, width, channels]` or
        `[features]`; null marks a side of any size.
    colour: how pictures become channels; "none" for arrays that are no pictures.
    resize: "bilinear" stretches a picture to the shape (antialiased); "none" refuses another size.
    range: the lowest and the highest raw value, e.g. [0, 255]; null where the unit has no bounds.
    unit: of the raw values, e.g. "HU"; empty for pixel values.
    """

    shape: list[Positive | None]
    dtype: Literal["float32"] = "float32"
    colour: Literal["grey", "rgb", "none"]
    resize: Literal["bilinear", "none"]
    range: tuple[float, float] | None = None
    unit: str = ""


class HeadRecord(Record, frozen=True, kw_only=True):
    """One output task.

    kind: what its `mean` holds: "class", one probability per class of several; "binary", one Bernoulli probability
        per entry; "real", expected values.
    combine: what its uncertainties are: "variance" for real heads, "entropy" (in nats) for the others.
    labels: class names (categorical), or the names of its outputs.
    outputs: the shape of each quantity without the batch; null marks a side of any size. Outputs beside the four
        quantities (quantiles, weights of a mixture, ...) are averages over the draws, as `mean` is.
    edges: the inner borders of the bins of each output, where the head has the output `bins`.
    """

    name: HeadName
    likelihood: str
    kind: Kind
    combine: Combine
    per_position: bool = False
    labels: list[str]
    unit: str = ""
    outputs: dict[HeadName, list[Positive | None]]
    edges: list[list[float]] = []

    @property
    def extra(self) -> tuple[str, ...]:
        """The outputs beside the four quantities, in the manifest's order."""
        return tuple(name for name in self.outputs if name not in QUANTITIES)


class FileRecord(Record, frozen=True, kw_only=True):
    """One file of the bundle.

    path: from the bundle's folder, with `/`. draws: the first position of the bank that it holds, and the number of
    draws; null for other variants.
    """

    path: str
    bytes: Natural
    sha256: Sha256
    format: Format
    variant: Variant
    precision: Precision = "float32"
    draws: tuple[Natural, Positive] | None = None


class DocumentRecord(Record, frozen=True, kw_only=True):
    """A file of the bundle that no engine reads: its bill of materials, in CycloneDX, or its stored answers."""

    path: Literal["sbom.cdx.json", "answers.json"]
    bytes: Natural
    sha256: Sha256


class BankError(Record, frozen=True, kw_only=True):
    """How far the first draws of a bank are from the pool that they were chosen from, on images not used for choosing.

    mean: root mean square difference of the predictive mean, relative to the standard deviation between draws
        (1 / sqrt(n) for n independent draws), averaged over heads.
    spread: root mean square difference of the epistemic uncertainty, relative to its size, averaged over heads.
    independent_mean, independent_spread: the same for as many independent draws.
    """

    draws: Positive
    images: Literal["training", "shifted"]
    mean: float
    spread: float
    independent_mean: float
    independent_spread: float


class Selection(Record, frozen=True, kw_only=True):
    """How the order of a bank was chosen.

    pool: the number of draws that it was chosen from.
    kept: whether the chosen order was better than the plain order and is used.
    """

    pool: Positive
    kept: bool
    errors: list[BankError]


class Tuning(Record, frozen=True, kw_only=True):
    """How the first draws of a bank were moved, so that few stand for many.

    draws: how many of the first were moved and are used; 0 if none is.
    weights: whose noise was moved. distance: by how much, the root mean square over its values, whose own is about 1.
    images, steps: that each chunk was tuned on, and by.
    errors: of the bank with them, on the images of `selection.errors`; if none is used, with all that were tried.
    reason: why none is used; empty if some are.
    """

    draws: Natural
    weights: list[str] = []
    distance: Annotated[float, Meta(ge=0)] = 0.0
    images: Natural = 0
    steps: Natural = 0
    errors: list[BankError] = []
    reason: str = ""

    @property
    def summary(self) -> str:
        """What was moved, or why nothing was, in words."""
        if self.reason:
            return f"no draw: {self.reason}"
        return f"the first {self.draws} draws, by {self.distance:.2g} standard deviations, in {', '.join(self.weights)}"


class EffectiveDraws(Record, frozen=True, kw_only=True):
    """What the first draws of a bank are worth, measured on images that it was not chosen on.

    precision: of the files, or of the engine's arithmetic.
    mean, spread: errors as in BankError, on images like the training images and on shifted ones.
    effective: the number of independent float32 draws whose four errors are as small.
    """

    precision: RunPrecision
    draws: Positive
    mean: tuple[float, float]
    spread: tuple[float, float]
    effective: Annotated[float, Meta(ge=0, le=1e6)]


class PosteriorRecord(Record, frozen=True, kw_only=True):
    """The draws that the bundle gives.

    With this seed, position i means index `order[i]`, and after the bank the unused indices in ascending order. With
    any other seed the index equals the position.

    order: of the bank. chunk: draws per file of the bank. samples: draws per image unless the user asks for another
    number. max_samples: the largest number that the user may ask for. selection: null for plain order. tuning: null if
    none was tried.
    effective: what the first chunks of the bank are worth; empty where it was not measured.
    """

    seed: Seed
    order: list[Natural]
    chunk: Positive
    samples: Positive
    max_samples: Positive
    selection: Selection | None = None
    tuning: Tuning | None = None
    effective: list[EffectiveDraws] = []


class Conformal(Record, frozen=True, kw_only=True):
    """A threshold of split conformal prediction, for sets or intervals that cover `coverage` of the targets.

    penalty, free_ranks: of the method `raps`, which adds `penalty` to a class for each rank after the first
        `free_ranks`.
    """

    coverage: Annotated[float, Meta(gt=0, lt=1)]
    method: str
    threshold: float
    penalty: Annotated[float, Meta(ge=0)] = 0.0
    free_ranks: Natural = 0


class RiskPoint(Record, frozen=True, kw_only=True):
    """A point of a head's risk-coverage curve on the validation split.

    threshold: of the total uncertainty, averaged over the outputs and positions of the head.
    kept: the share of the examples whose uncertainty is at most the threshold.
    risk: the share of the kept examples that are wrong: the likeliest class is not the true one. Of a head per
        position, the share of positions.
    """

    threshold: Annotated[float, Meta(ge=0)]
    kept: Annotated[float, Meta(gt=0, le=1)]
    risk: Annotated[float, Meta(ge=0, le=1)]


class Calibration(Record, frozen=True, kw_only=True):
    """How a head was calibrated.

    temperature, scale: the graphs apply them already.
    risk: the risk-coverage curve of the head; threshold, kept and risk rise from point to point.
    """

    head: HeadName
    temperature: CalibrationFactor = 1.0
    scale: CalibrationFactor = 1.0
    conformal: list[Conformal] = []
    risk: list[RiskPoint] = []


class NoveltyRecord(Record, frozen=True, kw_only=True):
    """How the graphs compute novelty; without this record they do not.

    images: the calibration images behind the p-values; the smallest p-value is 1 / (images + 1).
    fitted: the training images that an image is compared with.
    method: of the comparison, in words.
    stages: the layers of the network whose features are compared.
    map: the sides of `novelty.map`, the novelty of each position, `[height, width]`; null marks a side of any size.
        False where the graphs do not give it.
    """

    images: Annotated[int, Meta(ge=50, le=1000)]
    fitted: Annotated[int, Meta(ge=50, le=10**9)]
    method: Annotated[str, Meta(min_length=1, max_length=200)]
    stages: Annotated[list[Annotated[str, Meta(max_length=500)]], Meta(min_length=1, max_length=64)]
    map: Annotated[list[Positive | None], Meta(min_length=2, max_length=2)] | bool = False

    @property
    def outputs(self) -> dict[str, list[int | None]]:
        """The outputs of the graphs by name: their shapes without the batch."""
        outputs: dict[str, list[int | None]] = {f"{NOVELTY}.{quantity}": [] for quantity in NOVELTY_QUANTITIES}
        if isinstance(self.map, list):
            outputs[f"{NOVELTY}.{NOVELTY_MAP}"] = list(self.map)
        return outputs


class ParityRecord(Record, frozen=True, kw_only=True):
    """Largest difference of one output of one file from the model under the same handler.

    signature: of the SavedModel; empty for the other formats.
    quantity: of the head's answer that was compared; empty in a row that compares a metric.
    metric: of the task, computed from the answers of a coarser file; empty in a row that compares a quantity.
    ranking: rank correlation (Spearman) of an uncertainty with the model's, over the images; null for means,
        for metrics, and where the images are all alike.
    """

    file: str
    signature: str = ""
    head: HeadName
    quantity: str = ""
    metric: str = ""
    absolute: Annotated[float, Meta(ge=0)]
    relative: Annotated[float, Meta(ge=0)]
    tolerance: Annotated[float, Meta(gt=0)]
    ranking: Annotated[float, Meta(ge=-1, le=1)] | None = None

    @property
    def label(self) -> str:
        """The compared value as tables show it: `digit.mean` or `digit accuracy`."""
        return f"{self.head} {self.metric}" if self.metric else f"{self.head}.{self.quantity}"


class Provenance(Record, frozen=True, kw_only=True):
    """Where the bundle comes from; free-form, and predicting never needs it."""

    training: dict[str, Any]
    export: dict[str, Any]


class Manifest(Record, frozen=True, kw_only=True):
    """The content of `probrt.json`.

    sha256: the digest of the file itself, its bytes with these 64 digits replaced by zeros; older manifests have none.
    probrt: the version that exported the bundle. input: what `images` hold. heads: what the model predicts.
    files: those that engines read. posterior: the draws; null for a model that has one answer only.
    novelty: null where the graphs compute none. parity: one row per file and output.
    provenance: of the training and of the export: config, versions of libraries, digest of the data.
    ops: the operations that the SavedModel may hold, a subset of probrt's own list; null allows that whole list.
    documents: the files that no engine reads.
    """

    format: Literal[1] = FORMAT
    sha256: Sha256 | None = None
    probrt: str
    model: ModelRecord
    input: Input
    heads: Annotated[list[HeadRecord], Meta(min_length=1)]
    files: list[FileRecord]
    posterior: PosteriorRecord | None
    calibration: list[Calibration] = []
    novelty: NoveltyRecord | None = None
    parity: list[ParityRecord] = []
    ops: list[str] | None = None
    documents: list[DocumentRecord] = []
    provenance: Provenance

    @property
    def listed(self) -> tuple[FileRecord | DocumentRecord, ...]:
        """Every file of the bundle apart from the manifest and the signature."""
        return (*self.files, *self.documents)

    @property
    def answers(self) -> DocumentRecord | None:
        """The file with what the graphs answered at export; older bundles have none."""
        return next((document for document in self.documents if document.path == ANSWERS), None)

    def head(self, name: str) -> HeadRecord:
        """The head of that name; KeyError if there is none."""
        for head in self.heads:
            if head.name == name:
                return head
        raise KeyError(name)
