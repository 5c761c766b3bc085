"""The roles and playbooks as text: what can be held without any machine."""
