"""A server and a search page for models and indexes of fusemix. Importing this imports neither
starlette nor torch."""

from __future__ import annotations
