"""Who may call, as whom, how often and how much: keys, tokens, limits, quotas. Knows no HTTP."""
