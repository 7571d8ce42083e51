"""Event files for TensorBoard; needs the package ``tensorboard``."""

from __future__ import annotations

import os

from partial_fc.reports.json_lines import json_record
from partial_fc.reports.step_report import StepReport


class TensorBoardSink:
    """The figures of each report as scalars over the step, in event files below ``folder``, which is made if missing.

    Figures that are None, NaN or infinite are left out. ValueError where the package ``tensorboard`` is missing.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ValueError(f"event files need TensorBoard: pip install tensorboard ({error})") from error
        self._writer = SummaryWriter(os.fspath(folder))

    def write(self, report: StepReport) -> None:
        """Append the report's scalars; a thread of TensorBoard's writes them to the disk."""
        for name, value in json_record(report).items():
            if value is not None and name not in ("step", "timestamp_seconds"):
                self._writer.add_scalar(name, value, report.step, report.timestamp_seconds)

    def close(self) -> None:
        """Write what is left and close the files."""
        self._writer.close()
