"""One module per skill: composes what a picture holds and what is asked about it."""
