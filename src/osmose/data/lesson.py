"""What of a document is to be learned: all of it, what stands behind a prompt, or the assistant's part of a conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from osmose.data.text import Document
from osmose.errors import UserError

Span = tuple[int, int]
"""Where a part of a text begins and ends, in characters."""


@dataclass(frozen=True)
class Lesson:
    """A document as a tokenizer will read it.

    Attributes:
        text: all of it.
        learned: the parts of it that are to be learned, in order.
        ending: where its last word ends at the latest.
        framed: whether a token stands before and behind it; a conversation has its own.
    """

    text: str
    learned: tuple[Span, ...]
    ending: int
    framed: bool

    @property
    def learned_text(self) -> list[str]:
        """The parts that are to be learned."""
        return [self.text[begin:end] for begin, end in self.learned]


def lesson(document: Document, tokenizer: Any) -> Lesson:
    """What is to be learned of a document.

    Of a conversation that is each of the assistant's messages to the end of its turn, as the tokenizer's chat template writes it.

    Raises:
        UserError: where the tokenizer has no chat template, or one that cannot say the conversation turn by turn.
    """
    if not document.messages:
        text = document.prompt + document.text
        return Lesson(text, ((len(document.prompt), len(text)),), len(text), framed=True)
    messages, spans, ending = document.messages, [], 0
    text = _written(messages, tokenizer, document.place)
    for place, message in enumerate(messages):
        said = message["content"].strip()
        if message["role"] != "assistant" or not said:
            continue
        through = _written(messages[: place + 1], tokenizer, document.place)
        end, content = len(through), through.rfind(said)
        begin = _begin(messages[:place], through, content, tokenizer, document.place)
        if begin is None or content < begin or not text.startswith(through):
            raise UserError(
                f"{document.place}: the tokenizer's chat template writes a message differently once another one follows, so that "
                "its tokens cannot be told: give fields 'prompt' and 'completion'"
            )
        spans.append((begin, end))
        ending = content + len(said)
    return Lesson(text, tuple(spans), ending, framed=False)


def _begin(before: Sequence[Mapping[str, str]], through: str, content: int, tokenizer: Any, place: str) -> int | None:
    """Where what is to be learned of the last message in `through` begins; None where what stands before it is not told."""
    if not before:  # templates write no empty conversation
        return content
    for prompted in (True, False):  # some prompts to answer hold more than an answer begins with
        written = _written(before, tokenizer, place, add_generation_prompt=prompted)
        if through.startswith(written):
            return len(written)
    return None


def _written(messages: Sequence[Mapping[str, str]], tokenizer: Any, place: str, **settings: Any) -> str:
    if getattr(tokenizer, "chat_template", None) is None:
        raise UserError(
            f"{place} is a conversation, and the model's tokenizer has no chat template: give a model that was made for "
            "conversations, or fields 'prompt' and 'completion'"
        )
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **settings))
    except Exception as error:  # whatever the template raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{place}: the tokenizer's chat template refuses the conversation: {reason}") from None
