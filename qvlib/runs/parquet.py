"""Tables of a stage: written from its records a part at a time, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qvlib.base.errors import QvlibError
from qvlib.base.files import replacing
from qvlib.base.paths import display_path

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ROWS = 50_000  # rows of a table that are held at once, and a row group of its file

Record = Mapping[str, Any]


def write(
    path: Path,
    records: Callable[[], Iterable[Record]],
    keys: Sequence[str] = (),
    explode: str | None = None,
) -> Path:
    """Write records as Parquet; ``records()`` gives them in the order of ``keys``, twice.

    keys: columns to sort by, if any; those of a record go before those of its exploded rows.
    explode: as ``Stage.to_parquet`` has it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = _parts(records(), keys, explode)
    first, schemas = next(parts), [part.schema for part in parts]
    schema = pa.unify_schemas([first.schema, *schemas], promote_options="permissive")
    with (
        replacing(path) as file,
        pq.ParquetWriter(file, schema, compression="snappy") as writer,
    ):
        for part in _parts(records(), keys, explode) if schemas else [first]:
            writer.write_table(_as(schema, part))
    return path


def read(path: Path) -> pd.DataFrame:
    """A table.

    Raises:
        QvlibError: there is none, or it is no Parquet file, or cut off.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (OSError, pa.ArrowException) as error:
        what = "gone" if isinstance(error, FileNotFoundError) else "no whole Parquet file"
        raise QvlibError(
            f"{display_path(path)} is {what}; restore it, or delete the folder "
            f"{display_path(path.parent)} to make the stage anew"
        ) from None


def _parts(
    records: Iterable[Record], keys: Sequence[str], explode: str | None
) -> Iterator[pa.Table]:
    """Tables of about ``ROWS`` rows; at least one."""
    rows: list[Record] = []
    given = False
    for record in records:
        if len(rows) >= ROWS:
            yield _table(rows, keys)
            rows, given = [], True
        rows += _exploded(record, explode) if explode else [record]
    if rows or not given:
        yield _table(rows, keys)


def _table(rows: Sequence[Record], keys: Sequence[str]) -> pa.Table:
    import pandas as pd
    import pyarrow as pa

    table = pd.DataFrame(rows)
    if rows and keys:
        table = table.sort_values(list(keys), kind="stable", ignore_index=True)
    return pa.Table.from_pandas(table, preserve_index=False)


def _as(schema: pa.Schema, part: pa.Table) -> pa.Table:
    """A part with the columns and types of the whole; what it has not is null."""
    import pyarrow as pa

    if part.schema.equals(schema):
        return part
    columns = [
        part[field.name].cast(field.type)
        if field.name in part.schema.names
        else pa.nulls(len(part), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _exploded(record: Record, explode: str) -> list[dict[str, Any]]:
    shared = {k: v for k, v in record.items() if not isinstance(v, (list, dict))}
    for row in record[explode]:
        clash = next((k for k in shared if k in row and row[k] != shared[k]), None)
        if clash:
            raise ValueError(
                f"{explode}: {clash!r} is {shared[clash]!r} in the record "
                f"but {row[clash]!r} in a row"
            )
    return [{**shared, **row} for row in record[explode]]
