"""What several detectors share: layers, pyramid, heads, assignment, losses, post-processing."""
