"""One split of all ratings, and those of a genre in it."""

import pytest
import torch

from osmose.data.ratings import load_ratings
from osmose.errors import UserError


def parts(data):
    return {"train": data.train, "heldout": data.heldout, "test": data.test()}


def test_a_genre_is_taken_from_parts_of_everything(ratings):
    whole, war = load_ratings(ratings), load_ratings(ratings, genre="War")
    everything = [set(split.index.tolist()) for split in parts(whole).values()]
    assert sum(map(len, everything)) == len(set.union(*everything)) == 600
    assert [len(one) for one in everything] == [432, 48, 120]
    place = whole.genres.index("War")
    for name, split in parts(war).items():
        of_all = parts(whole)[name]
        items = of_all.inputs.read(torch.arange(len(of_all)))[:, 1]
        expected = of_all.index[whole.features[items, place] > 0]
        assert torch.equal(split.index, expected)
        assert 0 < len(split) < len(of_all)
    assert war.tables == whole.tables
    assert war.fingerprint == whole.fingerprint  # a teacher's signals are of all ratings


def test_settings_choose_ratings(ratings):
    whole, half = load_ratings(ratings), load_ratings(ratings, fraction=0.5)
    assert len(half.train) == 216
    assert set(half.train.index.tolist()) < set(whole.train.index.tolist())
    assert torch.equal(half.test().index, whole.test().index)
    other = load_ratings(ratings, split_seed=1)
    assert set(other.test().index.tolist()) != set(whole.test().index.tolist())
    assert load_ratings(ratings, heldout=0).heldout is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"genre": "Western"}, "has no genre 'Western': it has Action (300 ratings)"),
        ({"test": 0}, "key 'data.test' is 0: set it to a share between 0 and 1"),
        ({"heldout": 1}, "key 'data.heldout' is 1: set it to a share of at least 0 and below 1"),
        ({"fraction": 0}, "key 'data.fraction' is 0: set it to a share above 0 and at most 1"),
    ],
)
def test_mistakes(settings, message, ratings):
    with pytest.raises(UserError) as caught:
        load_ratings(ratings, **settings)
    assert message in str(caught.value)


def test_a_folder_that_is_not_there():
    with pytest.raises(UserError, match="data set 'ratings:nowhere': there is no folder nowhere; give the folder"):
        load_ratings("ratings:nowhere")


def test_a_genre_without_ratings_in_the_test_part_is_refused_at_once(tmp_path):
    """One rating of item 1, the only one of its genre, which is in no part but one."""
    (tmp_path / "a.item").write_text("item_id:token\tclass:token_seq\n1\tRare\n2\tWar\n")
    rows = ["1\t1\t5", *(f"{user}\t2\t3" for user in range(1, 40))]
    (tmp_path / "a.inter").write_text("\n".join(["user_id:token\titem_id:token\trating:float", *rows, ""]))
    name = f"ratings:{tmp_path}"
    seeds = [seed for seed in range(40) if 0 in load_ratings(name, split_seed=seed, heldout=0).train.index]
    with pytest.raises(UserError, match="has no ratings of genre 'Rare' in its test part: choose another share"):
        load_ratings(name, split_seed=seeds[0], heldout=0, genre="Rare")
