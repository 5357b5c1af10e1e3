"""Model code: checkpoint folders in, tensors out. Knows no queue, no HTTP."""
