"""What tests of every kind share: stand-ins, waiting, processes."""
