"""Batches of requests in files: ``/v1/batches``, and what works through them."""
