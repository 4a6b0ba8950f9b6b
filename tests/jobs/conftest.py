import pytest


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Reports without figures, which take half of a small run's time; tests/reports draws them."""
    monkeypatch.setattr("fusemix_core.reports.figures._svg", lambda *_, **__: "<svg></svg>")
