"""What `medchat plugins list` prints, from metadata alone: no plugin is imported, nor is click."""

from __future__ import annotations

from medchat.language import say
from medchat.registry.metadata import BACKBONES, COMMANDS, EXTENSIONS, conflicts, scan


def plugin_rows(allowed: set[str] | None) -> list[dict[str, str]]:
    """Return one row a plugin: name, kind (backbone, extension, command), distribution, version, module, status.

    `status` is "ready" (its code is imported when it is needed), "conflict" or "not allowed": its
    name is not among `allowed` (None: all are).
    """
    kinds = {BACKBONES: "backbone", EXTENSIONS: "extension", COMMANDS: "command"}
    entries = scan()
    claimed = conflicts(entries)
    rows = []
    for entry in sorted(
        entries, key=lambda entry: (list(kinds).index(entry.group), entry.name, entry.distribution)
    ):
        status = "ready"
        if (entry.group, entry.name) in claimed:
            status = "conflict"
        elif allowed is not None and entry.name not in allowed:
            status = "not allowed"
        rows.append(
            {
                "name": entry.name,
                "kind": kinds[entry.group],
                "distribution": entry.distribution,
                "version": entry.version,
                "module": entry.value,
                "status": status,
            }
        )
    return rows


def plugin_table(allowed: set[str] | None) -> str:
    """Return the table as text, untrusted metadata sanitised."""
    rows = plugin_rows(allowed)
    words = {
        "ready": say("就绪", "ready"),
        "conflict": say(
            "冲突：多个发行包占用此名称，均不使用",
            "conflict: several distributions claim this name; none is used",
        ),
        "not allowed": say(
            "不在允许之列（MEDCHAT_PLUGINS 或配置文件的 plugins）",
            "not allowed by MEDCHAT_PLUGINS or by plugins in config.toml",
        ),
    }
    lines = []
    for row in rows:
        origin = f"{row['distribution']} {row['version']}"
        lines.append(
            f"{_plain(row['name']):<14} {row['kind']:<10} {_plain(origin):<24} {words[row['status']]}"
        )
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Metadata that is anything but printable ASCII goes through the sanitiser, imported only then."""
    if text.isascii() and text.isprintable():
        return text
    from medchat.sanitize import sanitize_line

    return sanitize_line(text, 60)
