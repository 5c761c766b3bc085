"""Chat templates and answers of many models, through llama.cpp's own library."""
