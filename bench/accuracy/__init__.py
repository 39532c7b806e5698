"""Accuracy: recordings whose text is known go through our service and stock faster-whisper, and both are scored."""
