"""What an operator may have to mend in the prompt templates."""

from __future__ import annotations


class PromptsError(Exception):
    """A folder of templates that cannot be used; the message names the file and the key."""
