"""The provisioning plane: everything that installs, upgrades and removes rbee on machines through Ansible."""
