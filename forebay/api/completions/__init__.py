"""``/v1/completions``: a text is gone on with, without a chat template."""
