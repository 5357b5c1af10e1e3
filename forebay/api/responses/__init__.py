"""``/v1/responses``: one answer, at once, streamed, or asked for later."""
