"""The command line: what is typed becomes a call into `medchat.commands`."""
