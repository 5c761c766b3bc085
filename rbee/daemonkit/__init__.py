"""The common parts of the daemons: application, server, middleware, streams and drain."""
