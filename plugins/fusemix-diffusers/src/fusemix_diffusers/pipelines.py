"""Loads diffusers' pipelines: safetensors only, allowed classes only, no code of a repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fusemix_core.errors import ArtefactError
from fusemix_diffusers.files import Files


def load_pipeline(
    folder: Path, files: Files, name: str, device: torch.device, dtype: torch.dtype
) -> Any:
    """The pipeline in a folder that `read_folder` has checked; silent, in eval mode.

    Raises:
        ArtefactError: diffusers can't load it.
    """
    import diffusers

    try:
        with quiet():
            pipeline = getattr(diffusers, files.pipeline).from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=dtype
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # damaged files raise anything
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise ArtefactError(
            f"{name} can't be loaded from {folder}: {said}",
            "Fetch or copy the folder again. Only safetensors are read.",
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    return pipeline.to(device)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars of diffusers and transformers, and their notes on what they load."""
    from diffusers.utils import logging
    from fusemix_hf.loading import quiet as transformers_quiet

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with transformers_quiet():
            yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
