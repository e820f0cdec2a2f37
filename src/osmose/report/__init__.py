"""Reports: one HTML file that needs nothing else, for a run or a comparison."""

from osmose.report.run import report_run

__all__ = ["report_run"]
