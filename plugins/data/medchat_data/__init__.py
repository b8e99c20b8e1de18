"""`medchat data`: training data built from knowledge, with where each record comes from. A plugin without torch."""
