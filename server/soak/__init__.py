"""Does anything grow that should not? A steady sale with churn, watched and judged."""
