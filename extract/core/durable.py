"""Files and folders that appear whole, and are on the disk when they do.

    write(path, text)          a file, new or in the place of the old one
    place(draft, path)         a file or a folder that was written under another name
    sync(path)                 a file or a folder: returns when the disk has it

A rename alone is not enough: after a power failure the new name may be there and its content may
not, or the name be gone. So what is written is forced to the disk, then renamed, then the folder
that holds the name is forced to the disk too.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from uuid import uuid4

PRIVATE = 0o700


def sync(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk: returns when it is there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest(file: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with open(file, "rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


def folder(path: Path) -> Path:
    """Make a folder and those above it where they are missing, each on the disk; `path` again.

    What is made is its owner's alone, whatever the umask: it holds somebody's books.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(PRIVATE, exist_ok=True)
    for each in missing:
        sync(each.parent)
    return path


def place(draft: Path, path: Path, *, sync_folders: bool = True) -> Path:
    """Give a written file, or a folder with all that is in it, its name; `path` again.

    A file takes the place of an old one; a folder only that of an empty one. Both names must be
    on one file system. With `sync_folders=False` the caller calls `sync` for the folder once it
    has placed all that belongs there.
    """
    if draft.is_dir():
        for root, _, files in os.walk(draft):
            for name in files:
                sync(Path(root, name))
            sync(Path(root))
    else:
        sync(draft)
    os.replace(draft, path)
    if sync_folders:
        for each in {path.parent, draft.parent}:
            sync(each)
    return path


def write(path: Path, content: str | bytes, *, mode: int = 0o600) -> Path:
    """Write a small file whole or not at all; `mode` as the umask leaves it. Returns `path`.

    The folder is made where it is missing.
    """
    draft = folder(path.parent) / f".{path.name}.{uuid4().hex[:8]}.part"
    data = content.encode() if isinstance(content, str) else content
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out:
            out.write(data)
        return place(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
