"""One home, one first model and the same encoders for all pages: the sample is encoded once."""

import pytest
from doc_blocks import run_shell, write_user_folder
from loaded import share_encoders
from shortened import narrow

from fusemix_core.aligners.cca import CCAAligner


@pytest.fixture(scope="session")
def docs_home(tmp_path_factory):
    return tmp_path_factory.mktemp("docs-home")


@pytest.fixture(autouse=True)
def own_home(docs_home, own_registry, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(docs_home))


@pytest.fixture(autouse=True)
def first_ridge(monkeypatch):
    """A closed form takes the first of its ridges, where validation would choose one."""
    monkeypatch.setattr(
        CCAAligner, "_chosen", lambda cca, p, rows: cca._tried(p, cca.ridges[0], rows)
    )


@pytest.fixture(scope="session")
def user_folder(tmp_path_factory, docs_home):
    """A folder as a user has it after the tutorial: data, and the model runs/first."""
    folder = tmp_path_factory.mktemp("user")
    write_user_folder(folder)
    with pytest.MonkeyPatch.context() as patch:
        share_encoders(patch, shallow=True)
        narrow(patch)
        patch.chdir(folder)
        patch.setenv("FUSEMIX_HOME", str(docs_home))
        run_shell(
            "fusemix align --a efficientnet-lite0 --b minilm --data sample/pairs.csv "
            "--split-column split --out runs/first"
        )
    return folder
