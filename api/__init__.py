"""The HTTP surface. Routes translate between callers and `jobs/`; they load no model and decode no media."""
