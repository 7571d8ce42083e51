"""What Prometheus reads: rules and alerts with their unit tests, and a configuration to scrape by."""
