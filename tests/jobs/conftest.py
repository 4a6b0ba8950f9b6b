import pytest


@pytest.fixture(autouse=True)
def registry_of_its_own(own_registry):
    """What a test, or a file that it runs, registers is gone after it."""
