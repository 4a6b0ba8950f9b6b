"""The conformance kit: whether encoders, generators and components keep their contracts.

`check_encoder("my-encoder")` and its kin run every check and give a `Report`; the decorators
(`encoder_suite`, …) make each check a case of pytest, which only they need. On the command line:
`fusemix encoders check NAME`.
"""

from fusemix_core.testing.adapters import check_adapter
from fusemix_core.testing.aligners import check_aligner
from fusemix_core.testing.corrections import check_correction
from fusemix_core.testing.decorators import (
    adapter_suite,
    aligner_suite,
    correction_suite,
    encoder_suite,
    evaluator_suite,
    exporter_suite,
    fuser_suite,
    generator_suite,
    index_suite,
    medium_suite,
    mixup_suite,
    objective_suite,
    optimiser_suite,
    reader_suite,
    reranker_suite,
    scorer_suite,
    selector_suite,
    task_suite,
)
from fusemix_core.testing.encoders import check_encoder
from fusemix_core.testing.evaluators import check_evaluator
from fusemix_core.testing.exporters import check_exporter
from fusemix_core.testing.fusers import check_fuser
from fusemix_core.testing.generators import check_generator
from fusemix_core.testing.indexes import check_index
from fusemix_core.testing.media import check_medium
from fusemix_core.testing.mixups import check_mixup
from fusemix_core.testing.objectives import check_objective
from fusemix_core.testing.optimisers import check_optimiser
from fusemix_core.testing.readers import check_reader
from fusemix_core.testing.report import CheckResult, Report
from fusemix_core.testing.rerankers import check_reranker
from fusemix_core.testing.scorers import check_scorer
from fusemix_core.testing.selectors import check_selector
from fusemix_core.testing.tasks import check_task

__all__ = [
    "CheckResult",
    "Report",
    "adapter_suite",
    "aligner_suite",
    "check_adapter",
    "check_aligner",
    "check_correction",
    "check_encoder",
    "check_evaluator",
    "check_exporter",
    "check_fuser",
    "check_index",
    "check_generator",
    "check_medium",
    "check_mixup",
    "check_objective",
    "check_optimiser",
    "check_reader",
    "check_reranker",
    "check_scorer",
    "check_selector",
    "check_task",
    "correction_suite",
    "encoder_suite",
    "evaluator_suite",
    "exporter_suite",
    "fuser_suite",
    "index_suite",
    "generator_suite",
    "medium_suite",
    "mixup_suite",
    "objective_suite",
    "optimiser_suite",
    "reader_suite",
    "reranker_suite",
    "scorer_suite",
    "selector_suite",
    "task_suite",
]
