"""The registry of data sources, one file each."""

from pathlib import Path

from osmose.data.sources import cosine, fashion_mnist, fashion_mnist_mini, idx, imagefolder, parquet
from osmose.data.sources.source import Source
from osmose.errors import UserError, unknown

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        fashion_mnist_mini.SOURCE,
        fashion_mnist.SOURCE,
        idx.SOURCE,
        parquet.SOURCE,
        imagefolder.SOURCE,
        cosine.SOURCE,
    )
}


def find(name: str) -> tuple[Source, Path | None]:
    """The source and the folder that a data set's name asks for; raises UserError for an unknown one."""
    kind, colon, location = name.partition(":")
    if kind not in SOURCES:
        if Path(name).exists():
            raise UserError(f"data set '{name}' is a path: say what it holds, as imagefolder:{name} or parquet:{name}")
        raise unknown("data set", kind, SOURCES)
    source = SOURCES[kind]
    if source.folder == "none" and colon:
        raise UserError(f"data set '{kind}' is part of the package and takes no folder: write {kind}")
    if source.folder == "needed" and not location:
        raise UserError(f"data set '{name}' lacks its folder: write {source.usage}")
    folder = Path(location).expanduser() if location else None
    if folder and not folder.is_dir():
        raise UserError(f"data set '{name}': {folder} is not a folder; give the folder that holds the files")
    return source, folder
