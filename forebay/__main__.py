"""``python -m forebay``: how the supervisor starts its children."""

from forebay.cli import main

main()
