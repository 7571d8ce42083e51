"""Every figure of docs/performance.md."""
