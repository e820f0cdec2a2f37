"""The ratio of two times that were measured in pairs."""

import math
import statistics
from collections.abc import Sequence


def ratio(times: Sequence[Sequence[float]], quantile: float) -> dict[str, object]:
    """The geometric mean of second / first over pairs, and its interval of `quantile` (of Student's t) standard errors."""
    logs = [math.log(second / first) for first, second in times]
    mean, half = statistics.mean(logs), quantile * statistics.stdev(logs) / math.sqrt(len(logs))
    return {
        "ratio": round(math.exp(mean), 4),
        "ratio_95": [round(math.exp(mean - half), 4), round(math.exp(mean + half), 4)],
    }
