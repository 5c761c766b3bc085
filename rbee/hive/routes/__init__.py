"""The HTTP and WebSocket routes of the hive, one module per thing."""
