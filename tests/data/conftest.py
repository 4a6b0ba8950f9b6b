import pytest


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("FUSEMIX_HOME", str(tmp_path_factory.mktemp("home")))
