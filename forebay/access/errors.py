"""What the operator must mend before anyone can be let in."""

from __future__ import annotations


class AccessSetupError(Exception):
    """Access cannot be set up as the settings say; the message names the mend."""
