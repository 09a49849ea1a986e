"""Commands that measure: fixed seeds, a warm-up, repeats, medians and spreads, a peer in the same run."""
