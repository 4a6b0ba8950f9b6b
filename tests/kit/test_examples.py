"""The examples in the docstrings of classes to subclass keep their contracts."""

import inspect
import textwrap

import torch
from torch import Tensor

from fusemix_core import Reranker
from fusemix_core.fusers.standard import Standard
from fusemix_core.fusers.trained import TrainedFuser, sample
from fusemix_core.modules import Modules
from fusemix_core.testing import check_fuser, check_reranker

NAMES = {one.__name__: one for one in (torch, Tensor, Standard, Modules, sample)}


def example(base):
    """The class in the example of a class's docstring."""
    code = textwrap.dedent(inspect.getdoc(base).partition("Example:\n")[2])
    names = {**NAMES, base.__name__: base}
    exec(code, names)  # noqa: S102  our own docstring
    return next(v for v in names.values() if inspect.isclass(v) and v.__module__ == "builtins")


def test_a_trained_fuser():
    how = {"training": {"epochs": 20, "lr": 0.05}}
    check_fuser(example(TrainedFuser), options=how).raise_if_failed()


def test_a_re_ranker():
    check_reranker(example(Reranker)).raise_if_failed()
