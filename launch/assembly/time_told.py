"""What a run says of its time at its end."""

from __future__ import annotations

import json

from launch.assembly.run_folder import RunFolder
from launch.units import seconds_text
from launch.writing import write_text
from partial_fc.reports.time_spent import TimeSpent

_WORTH_TELLING = 0.001  # of the whole time


def tell_time(spent: TimeSpent, folder: RunFolder) -> None:
    """Print what the time of the run was spent on, and keep it in its folder."""
    write_text(folder.time_spent, json.dumps({"goodput": spent.goodput, **spent.record()}, indent=2) + "\n")
    print(time_in_words(spent), flush=True)


def time_in_words(spent: TimeSpent) -> str:
    """The goodput, and where the rest of the time went, the largest first; what is below a thousandth is left out."""
    total = sum(spent.seconds.values())
    rest = {cause: seconds for cause, seconds in spent.seconds.items() if cause != "training"}
    told = sorted((seconds, cause) for cause, seconds in rest.items() if seconds > _WORTH_TELLING * total)
    lost = ", ".join(f"{cause} {seconds_text(seconds)}" for seconds, cause in reversed(told))
    return f"goodput {100 * spent.goodput:.1f} % of {seconds_text(total)}{f'; the rest: {lost}' if lost else ''}"
