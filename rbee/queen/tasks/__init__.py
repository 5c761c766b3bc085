"""Run the inferences that clients ask for, from admission to the last byte."""
