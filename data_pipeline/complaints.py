"""Many complaints in one message."""

from __future__ import annotations

MOST_NAMED = 5  # places in one message


def listed(complaints: list[str]) -> str:
    """The first complaints, and how many more there are."""
    more = f" and {len(complaints) - MOST_NAMED} more" if len(complaints) > MOST_NAMED else ""
    return ", ".join(complaints[:MOST_NAMED]) + more
