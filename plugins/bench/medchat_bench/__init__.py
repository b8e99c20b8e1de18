"""`medchat bench`: how fast a model answers on this machine. A plugin on `medchat.plugin_kit` alone."""
