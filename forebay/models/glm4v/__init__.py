"""The Glm4v / Glm46V architecture: vision tower, projector, decoder with M-RoPE."""
