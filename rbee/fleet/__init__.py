"""The provisioning plane: the inventory, the playbooks and their runs, the reports and the keys of the machines."""
