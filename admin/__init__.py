"""The operator's commands, `python -m admin`. They work at the database itself, so also while the API is away."""
