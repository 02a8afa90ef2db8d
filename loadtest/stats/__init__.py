"""Statistics of samples: percentiles, ratios and shares with their intervals."""
