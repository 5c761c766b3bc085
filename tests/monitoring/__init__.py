"""The Prometheus rules and the Grafana dashboard that the queen's role ships, tried with a real Prometheus."""
