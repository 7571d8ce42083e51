"""What Prometheus and Grafana read: rules and alerts with their unit tests, and a dashboard."""
