"""CutPaste: a network trained to tell normal tiles from cut and pasted ones (arXiv 2104.04015)."""
