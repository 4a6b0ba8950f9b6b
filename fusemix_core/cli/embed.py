"""`fusemix embed`: fill the latent store, fit nothing."""

from __future__ import annotations

from fusemix_core.cli import options as o
from fusemix_core.errors import ConfigError


def embed(
    a: o.A = None,
    b: o.B = None,
    encoder: o.Encoders = None,
    data: o.Data = None,
    column: o.Columns = None,
    max_bad: o.MaxBad = None,
    allow_outside: o.AllowOutside = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    store_dtype: o.StoreDtype = None,
    encode_batch: o.EncodeBatch = None,
    json: o.Json = False,
) -> None:
    """Encode the items of a dataset and keep their latents, for any later run.

    What is in the store already is not encoded again. One encoder is enough here.

    Examples:

        fusemix embed --a dinov2 --b bge-large --data pairs.csv

        fusemix embed --encoder image=efficientnet-lite0 --data photos/
    """
    from fusemix_core.cli.console import print_json, print_table
    from fusemix_core.cli.progress import ConsoleReporter
    from fusemix_core.config import DataConfig, from_dict
    from fusemix_core.data.reading import read_pairs
    from fusemix_core.flow.settings import resolve_encoders

    specs = resolve_encoders(o.encoder_values(a, b, encoder))
    if not specs or not data:
        raise ConfigError(
            "Say what to encode.", "Example: fusemix embed --encoder image=NAME --data photos/"
        )
    table = o.data_values(
        source=data,
        columns=column,
        max_bad=max_bad,
        allow_outside=allow_outside,
        validation_fraction=0.0,
        test_fraction=0.0,
    )
    config = from_dict(DataConfig, table, "data.")
    dataset = read_pairs(config, {m: s.takes for m, s in specs.items()}, least=1)
    dataset.check_bad(config.max_bad)

    from fusemix_core.devices import resolve_device
    from fusemix_core.flow.encode import Encoding, encode_dataset

    how = Encoding(
        resolve_device(device or "auto"),
        dtype or "float32",
        store_dtype or "float16",
        encode_batch,
    )
    with ConsoleReporter() as reporter:
        encoded = encode_dataset(dataset, specs, how, reporter)
    encoded.dataset.check_bad(config.max_bad)
    rows = [
        {
            "modality": m,
            "encoder": specs[m].name,
            "items": len(dataset.items[m]),
            "encoded": e.encoded,
            "cached": e.cached,
            "bad": len(e.bad),
            "fingerprint": e.fingerprint,
        }
        for m, e in encoded.extractions.items()
    ]
    if json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [list(r.values()) for r in rows])
