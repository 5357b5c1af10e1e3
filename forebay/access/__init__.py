"""Who may come in: callers, keys, tokens, rates, and the record of what was done with them."""
