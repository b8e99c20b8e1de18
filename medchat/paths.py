"""Where MedChat keeps its files: configuration, sessions, models, caches.

The XDG folders (through platformdirs, imported only when asked for: it costs 20 ms), or folders under
`MEDCHAT_HOME`, which moves them all. Asking for a place creates nothing; `make_private` does.
"""

from __future__ import annotations

import os
from pathlib import Path

from medchat.errors import MedchatError
from medchat.language import say
from medchat.user_paths import user_path

APPLICATION = "medchat"
PRIVATE_FOLDER_MODE = 0o700


def _home() -> Path | None:
    chosen = os.environ.get("MEDCHAT_HOME", "")
    return user_path(chosen).absolute() if chosen else None


def config_dir() -> Path:
    """Return the folder of `config.toml`: `$XDG_CONFIG_HOME/medchat`, or `$MEDCHAT_HOME` itself."""
    if home := _home():
        return home
    import platformdirs

    return platformdirs.user_config_path(APPLICATION, appauthor=False)


def data_dir() -> Path:
    """Return the folder of sessions and models: `$XDG_DATA_HOME/medchat`, or `$MEDCHAT_HOME/data`."""
    if home := _home():
        return home / "data"
    import platformdirs

    return platformdirs.user_data_path(APPLICATION, appauthor=False)


def cache_dir() -> Path:
    """Return the folder of what can be made again: `$XDG_CACHE_HOME/medchat`, or `$MEDCHAT_HOME/cache`."""
    if home := _home():
        return home / "cache"
    import platformdirs

    return platformdirs.user_cache_path(APPLICATION, appauthor=False)


def config_file() -> Path:
    """Return the user's configuration file, which need not exist."""
    return config_dir() / "config.toml"


def project_config_file() -> Path:
    """Return `./medchat.toml`, which need not exist."""
    return Path("medchat.toml")


def sessions_file() -> Path:
    """Return the SQLite file of saved sessions, which need not exist."""
    return data_dir() / "sessions.db"


def models_dir() -> Path:
    """Return the folder that model names are looked up in."""
    return data_dir() / "models"


def quantized_dir() -> Path:
    """Return the folder where quantised weights are kept for the next start, which need not exist."""
    return cache_dir() / "quantized"


def make_private(folder: Path) -> Path:
    """Create `folder` and its missing parents with mode 0700, whatever the umask, and return it.

    Folders that exist keep their mode: they may be the user's own. Raises MedchatError.
    """
    missing = []
    place = folder
    while not place.exists() and place != place.parent:
        missing.append(place)
        place = place.parent
    try:
        for place in reversed(missing):
            place.mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
            place.chmod(PRIVATE_FOLDER_MODE)
        if not folder.is_dir():
            raise NotADirectoryError(20, os.strerror(20))
    except OSError as error:
        raise MedchatError(
            say(f"无法建立目录：{error.strerror}", f"cannot create the folder: {error.strerror}"),
            say(
                "请修正权限，或用环境变量 MEDCHAT_HOME 指定一个可写的目录",
                "fix the permissions, or point MEDCHAT_HOME at a folder you can write to",
            ),
            where=str(folder),
        ) from error
    return folder
