"""Blocks of tokens: nothing is lost, nothing is learned across documents."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from osmose.data.packing import Tokens, pack


def document(*ids, prompt=0):
    return Tokens(np.array(ids, dtype=np.int32), np.arange(len(ids)) >= prompt if prompt else None)


def test_by_hand():
    blocks = pack([document(1, 2, 3), document(4, 5, 6, 7), document(8)], 4, padding=0)
    assert blocks.tokens.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert blocks.documents.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]
    assert blocks.learned.tolist() == [[False, True, True, False], [False, True, True, False]]


def test_documents_with_prompts_stay_whole():
    blocks = pack([document(1, 2), document(3, 4, 5, prompt=1), document(*range(10, 16), prompt=2)], 4, padding=9)
    assert blocks.tokens.tolist() == [[1, 2, 9, 9], [3, 4, 5, 9], [10, 11, 12, 13]]
    assert blocks.documents.tolist() == [[0, 0, -1, -1], [0, 0, 0, -1], [0, 0, 0, 0]]
    assert blocks.learned.tolist() == [
        [False, True, False, False], [False, True, True, False], [False, False, True, True],
    ]  # fmt: skip


@given(st.lists(st.lists(st.integers(0, 1000), max_size=20), max_size=10), st.integers(1, 8))
def test_without_prompts_the_tokens_come_out_in_order_and_only_the_last_block_is_padded(texts, length):
    blocks = pack([document(*ids) for ids in texts], length, padding=-7)
    flat = [token for ids in texts for token in ids]
    assert blocks.tokens.flatten()[: len(flat)].tolist() == flat
    assert len(blocks) == -(-len(flat) // length)
    assert ((blocks.documents == -1) == (np.arange(blocks.tokens.size).reshape(blocks.tokens.shape) >= len(flat))).all()


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3)), max_size=10), st.integers(2, 8))
def test_every_learned_token_stands_behind_one_of_its_document_and_behind_its_prompt(shapes, length):
    blocks = pack([document(*range(size), prompt=prompt) for size, prompt in shapes], length, padding=-7)
    for row, column in zip(*blocks.learned.nonzero(), strict=True):
        assert column > 0
        assert blocks.documents[row, column] == blocks.documents[row, column - 1] >= 0
    prompts = [prompt for size, prompt in shapes if prompt]
    whole = sum(max(0, min(size, length) - prompt) for size, prompt in shapes if prompt)
    if len(prompts) == len(shapes):
        assert blocks.learned.sum() == whole
