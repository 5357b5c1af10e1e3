"""Pure ASGI, one concern a file. Their order is explained in ``forebay.api.app``."""
