"""Each queue of the comparison as its documentation uses it; peers run in their own environment.

Every module ``on_NAME`` sends numbers one by one (``send``), has a worker answer each number with
itself, and reads the answers back through its own client (``read``). Nothing here may import
``forebay`` but ``on_forebay`` and what belongs to it.
"""
