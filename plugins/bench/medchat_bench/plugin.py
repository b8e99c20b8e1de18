"""Where MedChat finds the command."""

from __future__ import annotations

import click

from medchat.plugin_kit import hookimpl

medchat_api_version = 1


@hookimpl
def medchat_commands() -> list[click.Command]:
    """Return the command `medchat bench`."""
    from medchat_bench.command import bench

    return [bench]
