"""What GGUF model files say about themselves."""
