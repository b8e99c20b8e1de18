"""`medchat export`: a model and its adapters as one checkpoint, as GGUF, for Ollama, with a model card."""
