"""One home and one first model for all pages, so that the sample is encoded once."""

import pytest
from doc_blocks import run_shell, write_user_folder


@pytest.fixture(scope="session")
def docs_home(tmp_path_factory):
    return tmp_path_factory.mktemp("docs-home")


@pytest.fixture(autouse=True)
def own_home(docs_home, own_registry, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(docs_home))


@pytest.fixture(scope="session")
def user_folder(tmp_path_factory, docs_home):
    """A folder as a user has it after the tutorial: data, and the model runs/first."""
    folder = tmp_path_factory.mktemp("user")
    write_user_folder(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FUSEMIX_HOME", str(docs_home))
        run_shell(
            "fusemix align --a efficientnet-lite0 --b minilm --data sample/pairs.csv "
            "--split-column split --out runs/first"
        )
    return folder
