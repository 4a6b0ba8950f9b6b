"""Qdrant: a server, or its local mode in a folder."""

from __future__ import annotations

import os
from urllib.parse import SplitResult
from uuid import UUID

from fusemix_core.errors import ConfigError
from fusemix_stores.rows import Source


def send_qdrant(source: Source, url: SplitResult) -> list[str]:
    """Write a collection, in place of one of that name; lines on how to search it.

    `qdrant://HOST:6333/COLLECTION` is a server, by HTTPS with the key in
    QDRANT_API_KEY if that is set.
    `qdrant:FOLDER#COLLECTION` is the local mode.
    """
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, PointStruct, VectorParams

    name = url.fragment or url.path.strip("/")
    if not name or "/" in name:
        raise ConfigError(
            "The name of the collection is missing.",
            "qdrant://localhost:6333/photos, or in a folder: qdrant:my_folder#photos",
        )
    if url.netloc:
        key = os.environ.get("QDRANT_API_KEY")
        address = f"{'https' if key else 'http'}://{url.netloc}"
        shown = f'url="{address}"'
        client = QdrantClient(url=address, api_key=key)
    else:
        shown = f'path="{url.path}"'
        client = QdrantClient(path=url.path)
    try:
        client.delete_collection(name)
        client.create_collection(
            name,
            vectors_config=VectorParams(size=source.width, distance=Distance.DOT),
            metadata=dict(source.facts),
        )
        for rows in source.rows():
            points = [
                PointStruct(id=str(UUID(hex=key)), vector=vector.tolist(), payload=fields)
                for key, vector, fields in zip(rows.keys, rows.vectors, rows.fields, strict=True)
            ]
            client.upsert(name, points, wait=True)
    finally:
        client.close()
    return [f'QdrantClient({shown}).query_points("{name}", query=q, limit=10)']
