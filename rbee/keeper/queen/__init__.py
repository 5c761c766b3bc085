"""The queen as a process of this machine: found, started, stopped, and checked to be gone."""
