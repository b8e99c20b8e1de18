"""`medchat sessions export|import`: sessions as files."""

from __future__ import annotations

from pathlib import Path

import click

from medchat.chat.session_lines import session_line
from medchat.cli.group import LocalizedCommand
from medchat.cli.output import say_aside, write_out
from medchat.errors import UsageError
from medchat.language import say
from medchat.sanitize import sanitize_line
from medchat.store import SessionStore
from medchat.user_paths import user_path


@click.command(
    "export",
    cls=LocalizedCommand,
    help=say(
        "把会话导出为文件：.md、.html 供阅读，.json 保留全部内容，.jsonl 可用于 medchat sft。",
        "Write sessions to a file: .md and .html to read, .json with everything, .jsonl for medchat sft.",
    ),
)
@click.argument("session", nargs=-1)
@click.option("--all", "everything", is_flag=True, help=say("全部会话", "every session"))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    help=say("后缀决定格式；- 为标准输出的 .md", "the suffix chooses the format; - prints Markdown"),
)
@click.option(
    "--redact", is_flag=True, help=say("遮去姓名、证件号和电话", "mask names, ID and telephone numbers")
)
@click.option("--overwrite", is_flag=True, help=say("覆盖已有的文件", "replace an existing file"))
def export_command(
    session: tuple[str, ...], everything: bool, output: Path, redact: bool, overwrite: bool
) -> int:
    """Export sessions. Raises UsageError for no session, an unknown suffix, or an existing file."""
    # Imported here because the other subcommands start faster without it.
    from medchat.transcripts import check_place, export_suffix, export_text, left_out, write_export

    if bool(session) == everything:
        raise UsageError(
            say("请指定会话编号，或用 --all", "name a session, or give --all"),
            "medchat sessions export ID --output FILE.md|.html|.json|.jsonl",
        )
    to_stdout = str(output) == "-"
    if not to_stdout:
        output = user_path(str(output))
        check_place(output, overwrite=overwrite)
    with SessionStore.open() as store:
        records = store.list() if everything else tuple(map(store.get, session))
        transcripts = [store.transcript(record.id) for record in records]
    if not transcripts:
        raise UsageError(say("还没有保存的会话", "there is no saved session yet"), "medchat chat")
    if to_stdout:
        return write_out(export_text(transcripts, ".md", redact=redact))
    write_export(output, transcripts, redact=redact, overwrite=overwrite)
    say_aside(
        say(f"已导出 {len(transcripts)} 个会话：", f"exported {len(transcripts)} session(s): ")
        + sanitize_line(str(output))
        + left_out(transcripts, export_suffix(output))
    )
    return 0


@click.command(
    "import",
    cls=LocalizedCommand,
    help=say(
        "导入会话：export 写出的 .json，或 OpenAI、ShareGPT 形式的对话（JSON、JSONL）。",
        "Import sessions: a .json of export, or conversations in OpenAI's or ShareGPT's format (JSON, JSON lines).",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
def import_command(file: Path) -> int:
    """Import sessions: all of the file, or none."""
    from medchat.transcripts import read_transcripts

    transcripts = read_transcripts(user_path(str(file)))
    with SessionStore.open() as store:
        added = store.add(transcripts)
    for record in added[:10]:
        say_aside(session_line(record))
    say_aside(say(f"已导入 {len(added)} 个会话", f"imported {len(added)} session(s)"))
    return 0
