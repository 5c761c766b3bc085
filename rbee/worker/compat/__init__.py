"""OpenAI- and Anthropic-compatible interfaces: each translates its requests and renders the results."""
