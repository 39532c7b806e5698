"""Untrusted media, bounded: decode, find speech, cut into windows. Never a job, a model or the database."""
