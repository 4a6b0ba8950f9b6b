"""PostgreSQL with the extension pgvector."""

from __future__ import annotations

from typing import Any, LiteralString
from urllib.parse import SplitResult, parse_qsl, urlencode

from fusemix_core.errors import ArtefactError
from fusemix_stores.rows import Source

TABLE = "fusemix"
_KINDS: dict[str, LiteralString] = {"number": "double precision", "text": "text"}


def send_pgvector(source: Source, url: SplitResult) -> list[str]:
    """Write a table, in place of one of that name, in one transaction; lines on how to search it.

    `pgvector://USER@HOST/DATABASE?table=photos`; what else the query has goes to the server.

    Raises:
        ArtefactError: The server can't be reached, or has no pgvector.
    """
    import psycopg
    from psycopg import sql

    options = dict(parse_qsl(url.query))
    name = sql.Identifier(table := options.pop("table", TABLE))
    address = url._replace(scheme="postgresql", query=urlencode(options)).geturl()
    own = [
        sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(_KINDS[kind]))
        for column, kind in source.columns.items()
    ]
    fixed = "key text PRIMARY KEY, modality text NOT NULL, item text, vector vector({})"
    columns = ["key", "modality", "item", "vector", *source.columns]
    try:
        with psycopg.connect(address) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(name))
            parts = sql.SQL(", ").join([sql.SQL(fixed).format(sql.Literal(source.width)), *own])
            connection.execute(sql.SQL("CREATE TABLE {} ({})").format(name, parts))
            into = sql.SQL("COPY {} ({}) FROM STDIN").format(
                name, sql.SQL(", ").join(map(sql.Identifier, columns))
            )
            with connection.cursor() as cursor, cursor.copy(into) as copy:
                for row in _lines(source):
                    copy.write_row(row)
    except psycopg.Error as error:
        raise ArtefactError(
            f"PostgreSQL can't take the vectors: {' '.join(str(error).split())}",
            "The address is pgvector://USER@HOST/DATABASE?table=NAME, and the server needs the "
            "extension pgvector.",
        ) from error
    return [f'SELECT item FROM "{table}" ORDER BY vector <#> $1 LIMIT 10']  # noqa: S608  shown only


def _lines(source: Source) -> Any:
    for rows in source.rows():
        for key, vector, fields in zip(rows.keys, rows.vectors, rows.fields, strict=True):
            numbers = "[" + ",".join(map(repr, map(float, vector))) + "]"
            own = [fields.get(name) for name in source.columns]
            yield [key, fields["modality"], fields["item"], numbers, *own]
