"""Make the packaged plays, and the tokenizer and configuration of llama-mini:

    python benchmarks/make_plays.py PLAYS.txt

PLAYS.txt holds the plays one after another, each beginning with a line "# TITLE" and each scene with a line "### SCENE ...".
A document is a scene in plain text. The tokenizer is byte-level BPE of 1,024 tokens, from the comedies.
"""

import re
import sys
from pathlib import Path

from osmose import torchvision_ops

COMEDIES = (
    "A Midsummer Night's Dream", "As You Like It", "Love's Labours Lost", "Much Ado About Nothing", "The Comedy of Errors",
    "The Merry Wives of Windsor", "Twelfth Night", "Two Gentlemen of Verona", "All's Well That Ends Well",
    "The Taming of the Shrew",
)  # fmt: skip
HISTORIES = (
    "Henry IV, Part I", "Henry IV, Part 2", "Henry V", "Henry VI, Part 1", "Henry VI, Part 2", "Henry VI, Part 3", "Richard II",
    "Richard III",
)  # fmt: skip


def scenes(text: str, titles: tuple[str, ...]) -> list[str]:
    """The scenes of some plays."""
    plays = {play.splitlines()[0].strip("# "): play for play in re.split(r"\n\n(?=# )", text)}
    found = []
    for title in titles:
        for scene in re.split(r"(?m)^###? .*$", plays[title])[1:]:
            plain = re.sub(r"[*_]+", "", scene)
            plain = "\n".join(line.strip() for line in plain.splitlines())
            plain = re.sub(r"\n{3,}", "\n\n", plain).strip()
            if len(plain) > 200:
                found.append(plain)
    return found


def main() -> None:
    torchvision_ops.install()
    import pyarrow
    import pyarrow.parquet as parquet
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    text, package = Path(sys.argv[1]).read_text(), Path(__file__).parents[1] / "src/osmose"
    parts = {"comedies": scenes(text, COMEDIES), "histories": scenes(text, HISTORIES)}
    for name, found in parts.items():
        table = pyarrow.table({"text": found})
        parquet.write_table(table, package / "data/plays" / f"{name}.parquet", compression="zstd", compression_level=19)
        print(name, len(found), "scenes", sum(map(len, found)), "characters")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(parts["comedies"], trainer)
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>").save_pretrained(package / "models/llama_mini")
    LlamaConfig(
        vocab_size=1024, hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None, eos_token_id=0,
        pad_token_id=0,
    ).save_pretrained(package / "models/llama_mini")  # fmt: skip


if __name__ == "__main__":
    main()
