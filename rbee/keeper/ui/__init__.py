"""What a person at the terminal sees and does: options, output, progress, errors and Ctrl-C."""
