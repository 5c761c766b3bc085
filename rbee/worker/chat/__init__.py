"""Chat in every model's own words: llama.cpp's templates and parsers."""
