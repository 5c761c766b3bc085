"""Read the headers of GGUF model files."""
