"""Fine-tuning as the command line sees it: settings, data, and the reports of a run. Never imports torch."""
