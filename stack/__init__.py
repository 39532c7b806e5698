"""`python -m stack`: PostgreSQL, Redis, API, relay, workers and Flower on one machine, without Docker.

Imports config and nothing else of ours: what it starts are separate processes, known by their command lines.
"""
