"""Inference engines behind one interface: llama.cpp, and a fake for tests."""
