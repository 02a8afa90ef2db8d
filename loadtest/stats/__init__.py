"""What samples allow to say: percentiles, ratios and shares with their intervals."""
