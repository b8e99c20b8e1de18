"""`medchat eval`: what a model knows and how it answers, in numbers with their uncertainty. A plugin without torch."""
