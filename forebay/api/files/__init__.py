"""Files that clients upload for batches, and that batches write: ``/v1/files``."""
