"""MedChat: a plugin-based terminal chat and fine-tuning application for Chinese medical language models."""

__version__ = "0.1.0"
