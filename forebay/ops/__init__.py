"""How Forebay says how it is."""
