"""The machines of the inventory: added, installed, started, stopped and removed through Ansible."""
