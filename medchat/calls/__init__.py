"""Many questions to one model, each asked once: every answer on disk as it comes, within a rate and a budget."""
