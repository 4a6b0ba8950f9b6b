"""`report.html`: one self-contained file on what a run did and how well."""

from fusemix_core.reports.data import Example, ReportData, Shown, ShownHit
from fusemix_core.reports.render import render_report, write_report

__all__ = ["Example", "ReportData", "Shown", "ShownHit", "render_report", "write_report"]
