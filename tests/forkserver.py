"""The process that forks others for multiprocessing: it has imported what takes long.

There is one for all tests that a worker of pytest runs, and it imports what is named before the
first of them, so all of it is named here.
"""

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "torch.distributed",
        "torch._dynamo",  # the first optimiser imports it
        "fusemix_core.aligners.gradient",
        "fusemix_core.cli.app",
        "sentence_transformers",
        "timm",
    ]
)
