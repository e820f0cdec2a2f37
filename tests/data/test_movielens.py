"""The layouts of ratings: the same ratings in each, and every kind of damaged row."""

import pytest
import torch

from osmose.data.movielens import read_ratings
from osmose.errors import UserError

GENRES = ("Action", "Film-Noir", "War")
RATINGS = [(2, 10, 4.0), (1, 9, 2.5), (2, 9, 1.0), (11, 10, 5.0)]
ITEMS = {9: ["Film-Noir"], 10: ["Action", "War"], 100: []}
NONE = "(no genres listed)"


def recbole(folder):
    lines = [
        "item_id:token\trating:float\tuser_id:token",
        *(f"{item}\t{stars}\t{user}" for user, item, stars in RATINGS),
    ]
    (folder / "some.inter").write_text("\n".join(lines))
    lines = [
        "item_id:token\ttitle:token_seq\tgenres:token_seq",
        *(f"{i}\tÀ {i}\t{' '.join(g) or NONE}" for i, g in ITEMS.items()),
    ]
    (folder / "some.item").write_text("\n".join(lines), "utf-8")


def hundred_thousand(folder):
    (folder / "u.data").write_text("".join(f"{user}\t{item}\t{stars}\t88\n" for user, item, stars in RATINGS))
    flags = {item: "|".join(str(int(genre in genres)) for genre in GENRES) for item, genres in ITEMS.items()}
    (folder / "u.item").write_text("".join(f"{i}|À {i}|1995||http|{f}\n" for i, f in flags.items()), "latin-1")
    (folder / "u.genre").write_text("".join(f"{genre}|{place}\n" for place, genre in enumerate(GENRES)) + "\n")


def million(folder):
    (folder / "ratings.dat").write_text("".join(f"{user}::{item}::{stars}::88\n" for user, item, stars in RATINGS))
    lines = "".join(f"{item}::À {item} (1995)::{'|'.join(genres)}\n" for item, genres in ITEMS.items() if genres)
    (folder / "movies.dat").write_text(lines, "latin-1")


def comma(folder):
    lines = ["userId,movieId,rating,timestamp", *(f"{user},{item},{stars},88" for user, item, stars in RATINGS)]
    (folder / "ratings.csv").write_text("\n".join(lines))
    lines = ["movieId,title,genres", *(f'{i},"À, {i} (1995)",{"|".join(g) or NONE}' for i, g in ITEMS.items())]
    (folder / "movies.csv").write_text("\n".join(lines), "utf-8")


@pytest.mark.parametrize("write", [recbole, hundred_thousand, million, comma])
def test_every_layout_gives_the_same_ratings(write, tmp_path):
    write(tmp_path)
    table = read_ratings(tmp_path)
    assert table.users == ("1", "2", "11")  # numbers by size
    assert table.items == (("9", "10") if write is million else ("9", "10", "100"))
    assert table.genres == GENRES
    found = [(int(table.users[user]), int(table.items[item])) for user, item in table.pairs.tolist()]
    assert found == [(user, item) for user, item, _ in RATINGS]
    assert table.stars.tolist() == [4.0, 2.5, 1.0, 5.0]
    assert table.features[:2].tolist() == [[0, 1, 0], [1, 0, 1]]
    assert torch.count_nonzero(table.features[2:]) == 0


@pytest.mark.parametrize(
    ("write", "file", "old", "new", "message"),
    [
        (
            recbole,
            "some.inter",
            "9\t2.5\t1",
            "9\t2.5",
            "some.inter, line 3: it has 2 fields, where 3 were expected: mend",
        ),
        (recbole, "some.inter", "9\t2.5\t1", "9\tgood\t1", "some.inter, line 3: its rating 'good' is no number: mend"),
        (recbole, "some.inter", "9\t2.5\t1", "9\tnan\t1", "line 3: its rating 'nan' is no number"),
        (recbole, "some.inter", "9\t2.5\t1", "7\t2.5\t1", "line 3: its item 7 is not among the items"),
        (
            recbole,
            "some.inter",
            "rating:float",
            "score:float",
            "some.inter has no column rating, only item_id, score, user_id",
        ),
        (
            recbole,
            "some.item",
            "genres:token_seq",
            "kinds:token_seq",
            "some.item has no column class or genre or genres, only",
        ),
        (hundred_thousand, "u.item", "|0|1|0", "|0|2|0", "u.item, line 1: its genres are not 0 or 1"),
        (
            hundred_thousand,
            "u.data",
            "1\t9\t2.5\t88",
            "1\t9\t2.5",
            "u.data, line 2: it has 3 fields, where 4 were expected",
        ),
        (million, "ratings.dat", "1::9::2.5::88", "1:9:2.5:88", "ratings.dat, line 2: it has 1 fields"),
        (comma, "ratings.csv", "1,9,2.5", "2,10,2.5", "ratings.csv, line 3: its user has rated this item before"),
        (comma, "movies.csv", "10,", "9,", "movies.csv, line 3: its item 9 was there before"),
        (comma, "movies.csv", '9,"À, 9 (1995)"', "9,À, 9 (1995)", "movies.csv, line 2: it has 4 fields, where 3 were"),
    ],
)
def test_damaged_rows_are_named_by_file_and_line(write, file, old, new, message, tmp_path):
    write(tmp_path)
    encoding = "latin-1" if file == "u.item" else "utf-8"
    text = (tmp_path / file).read_text(encoding)
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1), encoding)
    with pytest.raises(UserError) as caught:
        read_ratings(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1\t", " \t", "line 2: it names no user"),
        ("\t5", "\t1e39", "its rating '1e39' is no number"),
        ("\t5", "\t1_0", "its rating '1_0' is no number"),
    ],
)
def test_what_python_would_take_for_a_name_or_a_number(old, new, message, tmp_path):
    (tmp_path / "a.item").write_text("item_id:token\tclass:token_seq\n3\tWar\n")
    (tmp_path / "a.inter").write_text("user_id:token\titem_id:token\trating:float\n" + "1\t3\t5\n".replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_ratings(tmp_path)


def test_names_are_told_apart_without_the_space_around_them_and_may_be_long(tmp_path):
    (tmp_path / "a.item").write_text(f"item_id:token\tclass:token_seq\n3\tWar\n{'9' * 5000}\tWar\n")
    (tmp_path / "a.inter").write_text("user_id:token\titem_id:token\trating:float\n1\t3\t5\n 1\t3 \t4\n")
    with pytest.raises(UserError, match="line 3: its user has rated this item before"):
        read_ratings(tmp_path)


def test_genres_are_in_the_order_of_their_numbers(tmp_path):
    hundred_thousand(tmp_path)
    lines = (tmp_path / "u.genre").read_text().split("\n")
    (tmp_path / "u.genre").write_text("\n".join(reversed(lines)))
    assert read_ratings(tmp_path).features.tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
    (tmp_path / "u.genre").write_text("\n".join(line.replace("|2", "|7") for line in lines))
    with pytest.raises(UserError, match="u.genre, line 3: its number is '7', where 2 was expected: mend"):
        read_ratings(tmp_path)


def test_an_empty_file_and_a_field_that_never_ends(tmp_path):
    comma(tmp_path)
    with (tmp_path / "movies.csv").open("a") as file:
        file.write(f"\n11,{'x' * 200_000},War")
    with pytest.raises(UserError, match=r"movies.csv, line 5: it cannot be cut into fields \(field larger than"):
        read_ratings(tmp_path)
    (tmp_path / "movies.csv").write_text("")
    with pytest.raises(UserError, match="movies.csv is empty: give the whole file"):
        read_ratings(tmp_path)


def test_the_file_of_genres_is_missing(tmp_path):
    hundred_thousand(tmp_path)
    (tmp_path / "u.genre").unlink()
    with pytest.raises(UserError, match="has u.data and u.item but no u.genre, which names the genres: add it"):
        read_ratings(tmp_path)


def test_folders_without_ratings(tmp_path):
    with pytest.raises(UserError, match=r"holds no ratings: give a folder with NAME.inter and NAME.item, u.data"):
        read_ratings(tmp_path)
    comma(tmp_path)
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(UserError, match="holds no ratings: ratings.csv has no rows"):
        read_ratings(tmp_path)


def test_other_encodings_are_named(tmp_path):
    comma(tmp_path)
    (tmp_path / "movies.csv").write_bytes(b"movieId,title,genres\n9,\xc0,War\n")
    with pytest.raises(UserError, match=r"movies.csv is not utf-8 \(.*\): save it as utf-8"):
        read_ratings(tmp_path)


def test_what_files_of_others_may_hold(tmp_path):
    """A mark at the beginning, characters that other programs take for ends of lines, no genres."""
    comma(tmp_path)
    movies = tmp_path / "movies.csv"
    movies.write_text(movies.read_text("utf-8").replace("À", "A\u2028\x85\x0c"), "utf-8-sig")
    assert len(read_ratings(tmp_path).stars) == 4
    for file in (movies, tmp_path / "ratings.csv"):
        file.unlink()
    million(tmp_path)
    (tmp_path / "movies.dat").write_text("9::A\x85::(no genres listed)\n10::B::|War|\n", "latin-1")
    assert read_ratings(tmp_path).genres == ("War",)


def test_one_data_set_in_a_folder(tmp_path):
    recbole(tmp_path)
    for end in ("inter", "item"):
        (tmp_path / f"other.{end}").write_text((tmp_path / f"some.{end}").read_text("utf-8"), "utf-8")
    with pytest.raises(UserError, match=r"holds several data sets \(other, some\): give a folder with one"):
        read_ratings(tmp_path)
