"""Filling the latent store without fitting anything, and reading the latents of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fusemix_core.config import Backend, DataConfig, Dtype, StoreDtype, from_dict
from fusemix_core.data.dataset import PairedDataset
from fusemix_core.data.reading import NO_TRUST
from fusemix_core.devices import resolve_device
from fusemix_core.errors import ConfigError
from fusemix_core.interfaces import Encoder
from fusemix_core.runs.config import resolve_encoders, resolve_views
from fusemix_core.runs.cost import long_texts
from fusemix_core.runs.encode import Encoded, Encoding, encode_dataset
from fusemix_core.runs.fitting import fit_encoders
from fusemix_core.runs.inputs import DataInput, EncoderInput, data_table, encoder_names
from fusemix_core.runs.notices import Tell
from fusemix_core.runs.plan import EncoderPlan, plan_encoders
from fusemix_core.runs.reading import read_usable
from fusemix_core.runs.reporter import Reporter


def encode(
    encoders: Mapping[str, EncoderInput],
    data: DataInput,
    *,
    views: Mapping[str, str] | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    store_dtype: StoreDtype = "float16",
    encode_batch: int | None = None,
    backend: Backend = "auto",
    decode_processes: int | None = None,
    store: str | None = None,
    reporter: Reporter | None = None,
) -> Encoded:
    """The latents of a dataset: what the store lacks is encoded; what `fusemix encode` does.

    Args:
        encoders: modality → registered name, Encoder class with a `spec`, or loaded Encoder; one is
            enough.
        data: A path, the fields of `DataConfig`, a DataFrame, column → list, or a
            `datasets.Dataset`.
        views: modality → view, by default the encoder's first.
        device, dtype, store_dtype, encode_batch, backend, decode_processes: How items are encoded,
            as in `align`.
        device, dtype, store_dtype, encode_batch, backend: How items are encoded, as in `align`.
        store: The object store to keep latents in, such as `s3://bucket/prefix`, as in `align`.
        reporter: Gets the progress.

    Returns:
        `dataset` with the unique items of each modality and the `links` between them, and
        `tables[modality]` with the latents of these items, in their order:

        - items of one shape: `rows(index)` is float32 `[m, *table.shape]`;
        - items of unequal length: `rows(index)` is `Padded(values [m, T, d], mask [m, T])`, and
          `lengths` int64 `[n]` says how many each item has.

    Raises:
        FusemixError: For anything that the caller can mend.

    Example:

        found = encode({"text": "minilm"}, "pairs.csv", views={"text": "tokens"})
        found.dataset.items["text"].describe(0)  # the first text
        found.tables["text"].rows(torch.tensor([0, 1]))  # its tokens, and the second's
    """
    plan = plan_encoding(
        encoders,
        data,
        views=views,
        device=device,
        dtype=dtype,
        store_dtype=store_dtype,
        encode_batch=encode_batch,
        backend=backend,
        decode_processes=decode_processes,
        store=store,
        tell=reporter.note if reporter else None,
    )
    return run_encoding(plan, reporter)


@dataclass
class EncodingPlan:
    """What is to be encoded, and how: names resolved, data read, the store looked into."""

    dataset: PairedDataset
    how: Encoding
    encoders: dict[str, EncoderPlan]
    objects: dict[str, Encoder]
    max_bad: float


def plan_encoding(
    encoders: Mapping[str, EncoderInput],
    data: DataInput,
    *,
    views: Mapping[str, str] | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    store_dtype: StoreDtype = "float16",
    encode_batch: int | None = None,
    backend: Backend = "auto",
    decode_processes: int | None = None,
    store: str | None = None,
    tell: Tell | None = None,
) -> EncodingPlan:
    """What `encode` of the same arguments will do; `tell` gets the notes on the data."""
    names, objects = encoder_names(encoders)
    specs = resolve_encoders(names)
    if not specs:
        raise ConfigError("No encoder given.", 'Example: encode({"text": "minilm"}, "pairs.csv")')
    how = Encoding(
        resolve_device(device),
        dtype,
        store_dtype,
        encode_batch,
        resolve_views(specs, views or {}),
        backend,
        processes=decode_processes,
        store=store,
    )
    table = {"trust_column": NO_TRUST, **data_table(data)}
    table |= {"validation_fraction": 0.0, "test_fraction": 0.0}
    config = from_dict(DataConfig, table, "data.")
    dataset = read_usable(config, {m: s.takes for m, s in specs.items()}, tell=tell, least=1)
    if tell is not None:
        for warning in long_texts(specs, dataset.items):
            tell(warning)
    specs = fit_encoders(specs, dataset)
    planned = plan_encoders(dataset, specs, how, how.devices[0].type)
    return EncodingPlan(dataset, how, planned, objects, config.max_bad)


def run_encoding(plan: EncodingPlan, reporter: Reporter | None = None) -> Encoded:
    """Carry out the plan."""
    specs = {m: e.spec for m, e in plan.encoders.items()}
    return encode_dataset(
        plan.dataset, specs, plan.how, reporter or Reporter(), plan.objects, max_bad=plan.max_bad
    )
