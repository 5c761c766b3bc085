"""What daemons say of themselves: logs without secrets, and ids that tie lines together."""
