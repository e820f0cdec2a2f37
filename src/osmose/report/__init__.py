"""Reports: one HTML file that needs nothing else, for a run or a comparison."""

from pathlib import Path

from osmose.report.comparison import NUMBERS, report_comparison, write_comparison
from osmose.report.run import report_run

__all__ = ["report", "report_comparison", "report_run", "write_comparison"]


def report(folder: Path) -> list[Path]:
    """Write the report of a run, of each stage of one, or of a comparison again, from what its folder has.

    Raises:
        UserError: when the folder has none of them, or cannot be written.
    """
    if (folder / NUMBERS).exists():
        return [report_comparison(folder)]
    if (folder / "result.json").exists():
        return [report_run(folder)]
    stages = sorted(path.parent for path in folder.glob("*/result.json"))
    return [report_run(path) for path in stages or [folder]]
