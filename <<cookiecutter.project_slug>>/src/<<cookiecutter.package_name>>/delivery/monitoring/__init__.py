"""Late labels, live metrics and drift, alerts, the dashboard."""
