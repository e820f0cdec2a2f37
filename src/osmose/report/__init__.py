"""Reports: one HTML file that needs nothing else, for a run, a comparison or a study."""

from pathlib import Path

from osmose.errors import UserError
from osmose.report.comparison import NUMBERS, report_comparison, write_comparison
from osmose.report.run import report_run
from osmose.report.study import report_study

__all__ = ["report", "report_comparison", "report_run", "report_study", "write_comparison"]


def report(folder: Path) -> list[Path]:
    """Write the report of a run, of each stage of one, of a comparison or a study again, from what its folder has.

    Raises:
        UserError: when the folder has none of them, or cannot be written.
    """
    if (folder / NUMBERS).exists():
        return [report_comparison(folder)]
    if (folder / "table.parquet").exists():
        return [report_study(folder)]
    if (folder / "result.json").exists():
        return [report_run(folder)]
    stages = sorted(path.parent for path in folder.glob("*/result.json"))
    if not stages:
        raise UserError(f"{folder} has no finished run, study or comparison: give the folder that one of them wrote")
    return [report_run(path) for path in stages]
