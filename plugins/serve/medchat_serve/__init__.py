"""`medchat serve`: a loaded model for several users and other programs, over an OpenAI-compatible interface."""
