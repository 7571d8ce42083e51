"""The HTML pages: report and inspection."""
