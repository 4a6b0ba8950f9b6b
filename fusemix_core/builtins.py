"""What fusemix itself brings, through the same hooks as any plugin."""

from __future__ import annotations

from fusemix_core.hookspecs import hookimpl
from fusemix_core.modalities import AUDIO, IMAGE, TABLE, TEXT, VIDEO
from fusemix_core.recipes.auto import auto
from fusemix_core.recipes.closed_forms import CCA_SEARCH, cca, exportable, kcca
from fusemix_core.recipes.fusemix import MLP_SEARCH, fusemix
from fusemix_core.specs import ComponentSpec, FamilySpec, ModalitySpec

PAPER = "https://arxiv.org/abs/2312.10144"


ADAPTERS = [
    ComponentSpec(
        kind="adapter",
        name="mlp",
        target="fusemix_core.adapters.mlp:MlpAdapter",
        summary="residual inverted-bottleneck blocks, then a linear layer",
        options={"blocks": 4, "expansion": 4.0, "dropout": 0.0, "bias": True},
        paper=PAPER,
    ),
    ComponentSpec(
        kind="adapter",
        name="linear",
        target="fusemix_core.adapters.linear:LinearAdapter",
        summary="an affine map",
        options={"bias": True},
    ),
    ComponentSpec(
        kind="adapter",
        name="kernel",
        target="fusemix_core.adapters.kernel:KernelAdapter",
        summary="an affine map of similarities to training items, or of latents",
        options={"landmarks": 0, "linear": 0.2},
        keeps_items=True,
        without_items={"landmarks": 0},
        paper="https://papers.nips.cc/paper/1866",
    ),
    ComponentSpec(
        kind="adapter",
        name="wide",
        target="fusemix_core.adapters.wide:WideAdapter",
        summary="one wide hidden layer on standardised latents",
        options={"hidden": 2_048, "dropout": 0.3},
    ),
    ComponentSpec(
        kind="adapter",
        name="mixture",
        target="fusemix_core.adapters.mixture:MixtureAdapter",
        summary="adapters side by side, each with its weight in the cosine",
        options={"members": None},
    ),
    ComponentSpec(
        kind="adapter",
        name="identity",
        target="fusemix_core.adapters.identity:IdentityAdapter",
        summary="the latent as it is, for a modality that stays fixed",
    ),
]
MIXUPS = [
    ComponentSpec(
        kind="mixup",
        name="fusemix",
        target="fusemix_core.mixups.fusemix:FuseMixMixup",
        summary="first half of the batch with the second, one lambda for all modalities",
        options={"alpha": 1.0, "alpha_max": 1.0, "schedule": "constant"},
        paper=PAPER,
    ),
    ComponentSpec(
        kind="mixup",
        name="none",
        target="fusemix_core.mixups.none:NoMixup",
        summary="no augmentation",
    ),
]
OBJECTIVES = [
    ComponentSpec(
        kind="objective",
        name="infonce",
        target="fusemix_core.objectives.infonce:InfoNCE",
        summary="symmetric contrastive cross-entropy with a clamped temperature",
        options={"temperature": 0.07, "learnable": True, "mask_shared": False},
        paper="https://arxiv.org/abs/1807.03748",
    ),
    ComponentSpec(
        kind="objective",
        name="multi-positive",
        target="fusemix_core.objectives.multi_positive:MultiPositive",
        summary="infonce with all rows that share an item as partners",
        options={"temperature": 0.07, "learnable": True},
        paper="https://arxiv.org/abs/2004.11362",
    ),
    ComponentSpec(
        kind="objective",
        name="siglip",
        target="fusemix_core.objectives.siglip:SigLIP",
        summary="pairwise sigmoid loss with learnt scale and bias",
        options={"scale": 10.0, "bias": -10.0, "learnable": True, "shared": "negative"},
        paper="https://arxiv.org/abs/2303.15343",
    ),
]
OPTIMISERS = [
    ComponentSpec(
        kind="optimiser",
        name="adamw",
        target="fusemix_core.optimisers.adamw:AdamW",
        summary="Adam with decoupled decay, fused",
        options={"betas": (0.9, 0.999), "eps": 1e-8},
        paper="https://arxiv.org/abs/1711.05101",
    ),
    ComponentSpec(
        kind="optimiser",
        name="lion",
        target="fusemix_core.optimisers.lion:Lion",
        summary="the sign of a momentum; wants a tenth of AdamW's rate",
        options={"betas": (0.9, 0.99)},
        paper="https://arxiv.org/abs/2302.06675",
    ),
]
CCA_OPTIONS = {
    "landmarks": None,
    "linear": 0.2,
    "dim": 384,
    "ridges": (3.0, 1.0, 10.0),
    "powers": (1.0, 0.75, 1.5),
    "kernel_pairs": None,
}
ALIGNERS = [
    ComponentSpec(
        kind="aligner",
        name="gradient",
        target="fusemix_core.aligners.gradient:GradientAligner",
        summary="trains adapter, mixup and objective; may start from a closed form",
        uses=("fixed",),
    ),
    ComponentSpec(
        kind="aligner",
        name="auto",
        target="fusemix_core.aligners.auto:AutoAligner",
        summary="closed forms, then a network mixed with them",
        options={"budget": "", **CCA_OPTIONS},
        uses=("fixed",),
        keeps_items=True,
        without_items={"landmarks": 0},
    ),
    ComponentSpec(
        kind="aligner",
        name="cca",
        target="fusemix_core.aligners.cca:CCAAligner",
        summary="regularised canonical correlation, linear or kernel, in closed form",
        options=CCA_OPTIONS | {"root": True},
        uses=("fixed",),
        keeps_items=True,
        without_items={"landmarks": 0},
    ),
]
SCORERS = [
    ComponentSpec(
        kind="scorer",
        name="cosine",
        target="fusemix_core.scorers.cosine:CosineScorer",
        summary="cosine similarity",
    ),
    ComponentSpec(
        kind="scorer",
        name="csls",
        target="fusemix_core.scorers.csls:CSLSScorer",
        summary="cosine corrected for hubs by a bank of training embeddings",
        options={"neighbours": 10, "bank_size": 4096},
        keeps_items=True,
        paper="https://arxiv.org/abs/1710.04087",
    ),
]
SELECTORS = [
    ComponentSpec(
        kind="selector",
        name="uniform",
        target="fusemix_core.selectors.uniform:UniformSelector",
        summary="pairs at random",
    ),
    ComponentSpec(
        kind="selector",
        name="dpp",
        target="fusemix_core.selectors.dpp:DppSelector",
        summary="pairs whose items of one modality differ, by a greedy k-DPP",
        options={"by": "", "tolerance": 1e-10},
        uses=("latents",),
        paper="https://arxiv.org/abs/1709.05135",
    ),
]
EVALUATORS = [
    ComponentSpec(
        kind="evaluator",
        name="retrieval",
        target="fusemix_core.evaluation.retrieval:RetrievalEvaluator",
        summary="recall, median rank and mAP in all directions, with intervals",
        options={"resamples": 1000},
    ),
    ComponentSpec(
        kind="evaluator",
        name="geometry",
        target="fusemix_core.evaluation.geometry:GeometryEvaluator",
        summary="modality gap, alignment, uniformity, cosines of pairs, a map",
        options={"sample": 2048, "bins": 100},
        paper="https://arxiv.org/abs/2005.10242",
    ),
    ComponentSpec(
        kind="evaluator",
        name="zero-shot",
        target="fusemix_core.evaluation.zeroshot:ZeroShotEvaluator",
        summary="classification by prompts of the class names",
        options={
            "fact": "",
            "modality": "",
            "text": "",
            "resamples": 1000,
            "separator": "",
            "positive": ("{}",),
            "negative": ("no {}",),
            "group": "",
        },
        paper="https://arxiv.org/abs/2103.00020",
    ),
    ComponentSpec(
        kind="evaluator",
        name="groups",
        target="fusemix_core.evaluation.groups:GroupsEvaluator",
        summary="recall for each value of a column",
        options={"fact": "", "resamples": 1000},
        uses=("facts",),
    ),
    ComponentSpec(
        kind="evaluator",
        name="generation",
        target="fusemix_core.generation.evaluator:GenerationEvaluator",
        summary="what a generator draws, judged by another encoder (fusemix eval --generate NAME)",
        options={
            "generator": "",
            "images": "",
            "judge": "",
            "most": 100,
            "count": 2,
            "correct": "auto",
            "pixels": 0,
            "resamples": 1000,
            "settings": None,
        },
    ),
    ComponentSpec(
        kind="evaluator",
        name="compression",
        target="fusemix_core.evaluation.compression:CompressionEvaluator",
        summary="recall by fewer dimensions, and by int8 or binary codes",
        options={"dims": (64, 128), "dtypes": ("int8", "binary")},
    ),
]
READERS = [
    ComponentSpec(
        kind="reader",
        name="delimited",
        target="fusemix_core.data.delimited:DelimitedReader",
        summary="tables as text: .csv, .tsv, .txt",
        options={"delimiter": None, "encoding": None},
    ),
    ComponentSpec(
        kind="reader",
        name="jsonl",
        target="fusemix_core.data.jsonl:JsonLinesReader",
        summary="a JSON object per line: .jsonl",
        options={"encoding": None},
    ),
    ComponentSpec(
        kind="reader",
        name="json",
        target="fusemix_core.data.jsonl:JsonReader",
        summary="lists of objects, COCO and Karpathy's files: .json",
        options={"encoding": None},
    ),
    ComponentSpec(
        kind="reader",
        name="parquet",
        target="fusemix_core.data.parquet:ParquetReader",
        summary="Parquet, media as paths or bytes: .parquet",
    ),
    ComponentSpec(
        kind="reader",
        name="matrix",
        target="fusemix_core.data.matrices:MatrixReader",
        summary="ids of latents that exist already: .npy, .npz, .safetensors",
    ),
    ComponentSpec(
        kind="reader",
        name="saved",
        target="fusemix_core.data.saved:SavedReader",
        summary="folders saved by `datasets`",
    ),
    ComponentSpec(
        kind="reader",
        name="shards",
        target="fusemix_core.data.shards:ShardReader",
        summary="WebDataset shards: .tar, .tar.gz",
        options={"encoding": None},
    ),
    ComponentSpec(
        kind="reader",
        name="folder",
        target="fusemix_core.data.folders:FolderReader",
        summary="folders of media with a .txt beside each, of classes, tables or shards",
        options={"allow_outside": False, "encoding": None, "delimiter": None},
    ),
]
MEDIA = [
    ComponentSpec(
        kind="medium",
        name="text",
        target="fusemix_core.data.media.text:TextMedium",
        summary="texts in cells, or in text files",
    ),
    ComponentSpec(
        kind="medium",
        name="id",
        target="fusemix_core.data.media.id:IdMedium",
        summary="ids of items that the encoder has already",
    ),
    ComponentSpec(
        kind="medium",
        name="image",
        target="fusemix_core.data.media.image:ImageMedium",
        summary="what Pillow reads, as RGB",
    ),
    ComponentSpec(
        kind="medium",
        name="audio",
        target="fusemix_core.data.media.audio:AudioMedium",
        summary="what libsndfile reads, mono, at the encoder's rate",
    ),
    ComponentSpec(
        kind="medium",
        name="file",
        target="fusemix_core.data.media.file:FileMedium",
        summary="files that the encoder opens itself",
    ),
    ComponentSpec(
        kind="medium",
        name="table",
        target="fusemix_core.data.media.table:TableMedium",
        summary="the cells of a row: numbers, classes, dates",
    ),
]
_LINEAR = {"rank": 512, "ranks": {}}
_TRAINED = {"mix": 0.4, "drop": None, "training": {}}
FUSERS = [
    ComponentSpec(
        kind="fuser",
        name="stack",
        target="fusemix_core.fusers.stack:Stack",
        summary="each modality's own prediction, weighted; closed form",
        options=_LINEAR,
    ),
    ComponentSpec(
        kind="fuser",
        name="block",
        target="fusemix_core.fusers.block:BlockRidge",
        summary="ridge regression with a penalty for each modality; closed form",
        options=_LINEAR,
    ),
    ComponentSpec(
        kind="fuser",
        name="products",
        target="fusemix_core.fusers.products:ProductRidge",
        summary="block, and products of the directions that two modalities share; closed form",
        options=_LINEAR | {"products": 128},
    ),
    ComponentSpec(
        kind="fuser",
        name="concat",
        target="fusemix_core.fusers.block:ConcatRidge",
        summary="ridge regression on all latents side by side, the baseline; closed form",
        options=_LINEAR,
    ),
    ComponentSpec(
        kind="fuser",
        name="mlp",
        target="fusemix_core.fusers.mlp:MlpFuser",
        summary="a network on the sum of linear maps, trained with FuseMix",
        options={"width": 256, "dropout": 0.3, **_TRAINED},
        paper=PAPER,
    ),
    ComponentSpec(
        kind="fuser",
        name="attention",
        target="fusemix_core.fusers.attention:AttentionFuser",
        summary="a transformer on the tokens of all modalities, trained with FuseMix",
        options={
            "width": 128,
            "layers": 2,
            "heads": 4,
            "dropout": 0.2,
            "places": 0,
            "tagged": "",
            "tags": 0,
            **_TRAINED,
        },
        uses=("tokens",),
        paper=PAPER,
    ),
    ComponentSpec(
        kind="fuser",
        name="dense",
        target="fusemix_core.fusers.dense:DenseFuser",
        summary="a linear probe of every place, whose scores are a map",
        options={"size": 1, "grids": {}, "crop": 1.0, "dropout": 0.0, **_TRAINED, "mix": 0.0},
        uses=("tokens",),
        paper="https://arxiv.org/abs/2304.07193",
    ),
]
RERANKERS = [
    ComponentSpec(
        kind="reranker",
        name="interaction",
        target="fusemix_core.rerankers.interaction:Interaction",
        summary="each token with the token of the other side that it fits best",
        options={"width": 128, "kept": 128, "dropout": 0.2},
        paper="https://arxiv.org/abs/2004.12832",
    ),
]
TASKS = [
    ComponentSpec(
        kind="task",
        name="classify",
        target="fusemix_core.tasks.classify:Classify",
        summary="one of several classes",
        options={"classes": (), "positive": None, "weighted": False, "weights": ()},
    ),
    ComponentSpec(
        kind="task",
        name="regress",
        target="fusemix_core.tasks.regress:Regress",
        summary="a number",
        options={"mean": 0.0, "scale": 1.0},
    ),
    ComponentSpec(
        kind="task",
        name="multilabel",
        target="fusemix_core.tasks.multilabel:Multilabel",
        summary="several labels, any may apply or be missing",
        options={"labels": (), "positive": None},
    ),
    ComponentSpec(
        kind="task",
        name="occupy",
        target="fusemix_core.tasks.occupy:Occupy",
        summary="which cells of a grid are occupied, coarse and fine",
        options={"height": 0, "width": 0, "coarse": 0.5, "dice": 1.0},
        paper="https://arxiv.org/abs/1606.04797",
    ),
    ComponentSpec(
        kind="task",
        name="ordinal",
        target="fusemix_core.tasks.ordinal:Ordinal",
        summary="one of several classes in order",
        options={"order": None},
        paper="https://doi.org/10.1007/3-540-44795-4_13",
    ),
    ComponentSpec(
        kind="task",
        name="segment",
        target="fusemix_core.tasks.segment:Segment",
        summary="a class for each pixel of a mask",
        options={"size": 0, "values": (), "classes": None, "ignored": None, "dice": 1.0},
        paper="https://arxiv.org/abs/1606.04797",
    ),
    ComponentSpec(
        kind="task",
        name="tag",
        target="fusemix_core.tasks.tag:Tag",
        summary="a label for each token of a modality, such as each word",
        options={"modality": "text", "none": "", "labels": (), "length": 0},
    ),
    ComponentSpec(
        kind="task",
        name="box",
        target="fusemix_core.tasks.box:Box",
        summary="a box in the image of each row",
        options={"l1": 1.0, "giou": 1.0},
        paper="https://arxiv.org/abs/1902.09630",
    ),
    ComponentSpec(
        kind="task",
        name="survive",
        target="fusemix_core.tasks.survive:Survive",
        summary="when an event comes: Cox's proportional hazards",
        options={
            "event_is": None,
            "times": (),
            "hazard": (),
            "censor_times": (),
            "censor_left": (),
        },
        paper="https://doi.org/10.1111/j.2517-6161.1972.tb00899.x",
    ),
]
INDEXES = [
    ComponentSpec(
        kind="index",
        name="flat",
        target="fusemix_core.search.flat:FlatIndex",
        summary="compares a query with every vector: exact, to about a million items",
        options={"segment": 65_536},
    ),
    ComponentSpec(
        kind="index",
        name="faiss",
        target="fusemix_core.search.ivf:FaissIndex",
        summary="compares with similar vectors only: for a million items and more",
        options={"segment": 65_536, "least": 500_000, "lists": 0, "probes": 0},
        requires={"faiss": "fusemix[faiss]"},
    ),
]

ARTEFACTS = [
    ComponentSpec(
        kind="artefact",
        name="fused",
        target="fusemix_core.fused:FusedModel",
        summary="adapters of several modalities into one space, and a scorer",
    ),
    ComponentSpec(
        kind="artefact",
        name="reranker",
        target="fusemix_core.reranked:RerankModel",
        summary="a network that ranks the first results of a fused model anew",
    ),
    ComponentSpec(
        kind="artefact",
        name="predictor",
        target="fusemix_core.predictor:Predictor",
        summary="a prediction from several modalities: a fuser and a task",
    ),
]
CORRECTIONS = [
    ComponentSpec(
        kind="correction",
        name="none",
        target="fusemix_core.corrections.plain:NoCorrection",
        summary="embeddings as they are",
    ),
    ComponentSpec(
        kind="correction",
        name="norm",
        target="fusemix_core.corrections.plain:NormCorrection",
        summary="at the length of the encoder's latents",
    ),
    ComponentSpec(
        kind="correction",
        name="shift",
        target="fusemix_core.corrections.plain:ShiftCorrection",
        summary="moved by the difference of the modalities' means",
        paper="https://arxiv.org/abs/2203.02053",
    ),
    ComponentSpec(
        kind="correction",
        name="bank",
        target="fusemix_core.corrections.bank:BankCorrection",
        summary="projected on latents that exist",
        options={"temperature": 0.02, "size": 4096},
        paper="https://arxiv.org/abs/2303.03032",
        keeps_items=True,
    ),
    ComponentSpec(
        kind="correction",
        name="prior",
        target="fusemix_core.corrections.prior:PriorCorrection",
        summary="a latent drawn for each embedding by a small flow",
        options={"steps": 1000, "hidden": 512},
        paper="https://arxiv.org/abs/2204.06125",
    ),
    ComponentSpec(
        kind="correction",
        name="auto",
        target="fusemix_core.corrections.auto:AutoCorrection",
        summary="whichever did best on validation",
        options={"chosen": None, "with_bank": None},
    ),
]
EXPORTERS = [
    ComponentSpec(
        kind="exporter",
        name="onnx",
        target="fusemix_core.exports.onnx:OnnxExporter",
        summary="encoder, adapter and scorer's columns as ONNX, a model for each modality",
    ),
    ComponentSpec(
        kind="exporter",
        name="openvino",
        target="fusemix_core.exports.onnx:OpenVinoExporter",
        summary="the same as OpenVINO's own files",
    ),
    ComponentSpec(
        kind="exporter",
        name="parquet",
        target="fusemix_core.exports.tables:ParquetExporter",
        summary="vectors of data for an index, with keys and facts",
        options={"form": "gallery", "dims": 0, "dtype": "float32"},
        uses=("data",),
    ),
    ComponentSpec(
        kind="exporter",
        name="embedding-atlas",
        target="fusemix_core.exports.tables:EmbeddingAtlasExporter",
        summary="vectors, a map and neighbours of data, for Embedding Atlas",
        options={"neighbours": 15},
        uses=("data",),
    ),
]
RECIPES = [
    ComponentSpec.recipe(auto, search=CCA_SEARCH | {"aligner.linear": (0.2, 0.1, 0.4)}),
    ComponentSpec.recipe(fusemix, aliases=("fusemix-paper",), search=MLP_SEARCH),
    ComponentSpec.recipe(cca, search=CCA_SEARCH),
    ComponentSpec.recipe(exportable),
    ComponentSpec.recipe(kcca, search=CCA_SEARCH | {"aligner.linear": (0.2, 0.1, 0.4)}),
]


@hookimpl
def fusemix_modalities() -> list[ModalitySpec]:
    """Those that core knows by itself."""
    return [IMAGE, TEXT, AUDIO, VIDEO, TABLE]


@hookimpl
def fusemix_encoders() -> list[FamilySpec]:
    """Latents that exist already."""
    return [
        FamilySpec(
            prefix="npy",
            resolve="fusemix_core.encoders.ready:resolve",
            summary="latents that exist already, in .npy, .npz, .safetensors or Parquet",
            example="npy:img.npy",
        )
    ]


@hookimpl
def fusemix_components() -> list[ComponentSpec]:
    """The built-in components of each kind."""
    return [
        *ADAPTERS,
        *MIXUPS,
        *OBJECTIVES,
        *OPTIMISERS,
        *ALIGNERS,
        *SCORERS,
        *SELECTORS,
        *EVALUATORS,
        *READERS,
        *MEDIA,
        *FUSERS,
        *RERANKERS,
        *TASKS,
        *INDEXES,
        *ARTEFACTS,
        *CORRECTIONS,
        *EXPORTERS,
        *RECIPES,
    ]
