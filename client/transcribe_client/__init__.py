"""The command line of a Whisper Queue service. It knows the service by its HTTP API alone and imports nothing of it."""
