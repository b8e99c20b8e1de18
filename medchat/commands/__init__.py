"""The commands. Each module holds one click command (or group) called `command`; `medchat.cli.front` names them."""
