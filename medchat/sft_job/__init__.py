"""Fine-tuning as the command line knows it: settings, data, and the reports of a run. Knows no torch."""
