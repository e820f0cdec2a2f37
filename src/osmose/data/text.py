"""Documents from text files, JSON lines and parquet."""

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osmose.errors import UserError, missing_extra

SUFFIXES = (".txt", ".jsonl", ".json", ".parquet")
_FIELDS = "'text', or 'prompt' and 'completion', or 'messages'"
_WRITTEN = ("recipe.yaml", "blocks.i32")
"""What stands in folders of runs and of kept blocks, which hold no text."""
_NAMES = ("text", "prompt", "completion", "messages")


@dataclass(frozen=True)
class Document:
    """A text, of which the part behind the prompt is to be learned, or a conversation.

    Attributes:
        text: what is learned.
        prompt: what stands before it and is only read.
        place: where it was found, for people.
        messages: in place of both the messages of a conversation, each with a "role" and a "content".
    """

    text: str
    prompt: str
    place: str
    messages: tuple[Mapping[str, str], ...] = ()


def text_files(path: Path) -> list[Path]:
    """The file of text, or those in a folder and below it, in the order of their names, but for what runs wrote there.

    Raises:
        UserError: when there are none.
    """
    if path.is_dir():
        written = {folder for name in _WRITTEN for folder in (found.parent for found in path.rglob(name))}
        files = sorted(
            file
            for file in path.rglob("*")
            if file.suffix in SUFFIXES and written.isdisjoint(file.parents) and file.is_file()
        )
        if not files:
            raise UserError(f"{path} holds no text: give a folder or file of {', '.join(SUFFIXES)}")
        return files
    if path.suffix not in SUFFIXES:
        raise UserError(f"'{path}' is no text: give a folder or file of {', '.join(SUFFIXES)}")
    return [path]


def read_documents(file: Path, separator: str | None = None) -> Iterator[Document]:
    """The documents of a file, in order.

    A `.txt` file is one document, or is divided by `separator`; parts of nothing but white space are left out. A line of JSON
    and a row of parquet are one each: the field `text`, or `prompt` and `completion`, or `messages`.

    Raises:
        UserError: when it cannot be read, is not UTF-8, lacks these fields, or a document is empty.
    """
    try:
        if file.suffix == ".parquet":
            yield from _parquet(file)
        elif file.suffix == ".txt":
            yield from _text(file, separator)
        else:
            yield from _lines(file)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from None


def _text(file: Path, separator: str | None) -> Iterator[Document]:
    """The documents of a file of text, of which no more than one and a line are held."""
    number, waiting = 1, ""
    for _, line in _decoded(file):
        reach = max(0, len(waiting) - len(separator or "") + 1)
        waiting += line.removesuffix("\r\n") + "\n" if line.endswith("\r\n") else line
        if separator and waiting.find(separator, reach) >= 0:
            *whole, waiting = waiting.split(separator)
            for part in whole:
                if part.strip():
                    yield document({"text": part}, f"{file}, document {number}")
                number += 1
    if waiting.strip() or number == 1:
        yield document({"text": waiting}, f"{file}, document {number}" if separator else str(file))


def _lines(file: Path) -> Iterator[Document]:
    for number, line in _decoded(file):  # JSON has other line ends than \n inside of texts
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{file}, line {number} is not JSON ({error}): write one object a line") from None
        yield document(row, f"{file}, line {number}")


def _decoded(file: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their numbers, each with its end."""
    start = 0
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            if not start and line.startswith(codecs.BOM_UTF8):
                start, line = len(codecs.BOM_UTF8), line.removeprefix(codecs.BOM_UTF8)
            try:
                yield number, line.decode()
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{file} is not UTF-8: byte {start + error.start} is 0x{line[error.start]:02x}; convert it, for example with "
                    "iconv"
                ) from None
            start += len(line)


def _parquet(file: Path) -> Iterator[Document]:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ModuleNotFoundError as error:
        raise missing_extra("parquet files need", "study") from error
    try:
        opened = parquet.ParquetFile(file)
        wanted = [name for name in _NAMES if name in opened.schema_arrow.names]
        number = 0
        for batch in opened.iter_batches(columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield document(row, f"{file}, row {number}")
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"cannot read {file}: {' '.join(str(error).split())}") from None


def document(row: Any, place: str) -> Document:
    """The document that a line of JSON or a row of a table holds.

    Args:
        row: its fields by name.
        place: where it was found, for people.

    Raises:
        UserError: when it lacks the fields, or is empty.
    """
    if isinstance(row, dict) and "messages" in row and "text" not in row:
        return Document("", "", place, _conversation(row["messages"], place))
    if not isinstance(row, dict) or not ("text" in row or {"prompt", "completion"} <= row.keys()):
        raise UserError(f"{place} has no {_FIELDS}: name its fields so")
    text, prompt = (row["text"], "") if "text" in row else (row["completion"], row["prompt"])
    if not isinstance(text, str) or not isinstance(prompt, str):
        raise UserError(f"{place}: 'text', 'prompt' and 'completion' must be texts")
    if not text.strip():
        raise UserError(f"{place} is empty: leave it out")
    return Document(text, prompt, place)


def _conversation(messages: Any, place: str) -> tuple[Mapping[str, str], ...]:
    """Messages that can be learned from."""
    if isinstance(messages, list) and any(
        isinstance(one, dict) and (one.get("tool_calls") or one.get("function_call")) for one in messages
    ):
        raise UserError(f"{place} calls tools, which are not learned: leave it out")
    shaped = isinstance(messages, list) and all(
        isinstance(one, dict) and isinstance(one.get("role"), str) and isinstance(one.get("content"), str)
        for one in messages
    )
    if not shaped:
        raise UserError(f"{place}: 'messages' must be a list of objects with the texts 'role' and 'content'")
    if not any(one["role"] == "assistant" and one["content"].strip() for one in messages):
        raise UserError(f"{place} has no message of the role 'assistant' to be learned: leave it out")
    return tuple({"role": one["role"], "content": one["content"]} for one in messages)
