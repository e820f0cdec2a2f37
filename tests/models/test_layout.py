"""States as tokens and back, and tokens on another grid."""

import pytest
import torch

from osmose.errors import UserError
from osmose.models.layout import Layout


@pytest.mark.parametrize(
    ("shape", "channels_last", "expected"),
    [
        ((3, 5), False, Layout("vector", 5, 1, (1, 1))),
        ((3, 16, 5), False, Layout("tokens", 5, 16, (4, 4))),
        ((3, 17, 5), False, Layout("tokens", 5, 17, (4, 4), 1)),
        ((3, 18, 5), False, Layout("tokens", 5, 18, (4, 4), 2)),
        ((3, 7, 5), False, Layout("tokens", 5, 7, None)),
        ((3, 5, 2, 4), False, Layout("map", 5, 8, (2, 4))),
        ((3, 2, 4, 5), True, Layout("channels-last", 5, 8, (2, 4))),
    ],
)
def test_states_become_tokens_and_states_again(shape, channels_last, expected):
    state = torch.rand(shape)
    layout = Layout.of(state, channels_last=channels_last)
    assert layout == expected
    tokens = layout.tokens(state)
    assert tokens.shape == (3, layout.count, layout.width)
    assert torch.equal(layout.state(tokens), state)


def test_places_are_in_the_same_order_everywhere():
    image = torch.rand(2, 5, 3, 4)
    maps, last = Layout.of(image), Layout.of(image.permute(0, 2, 3, 1), channels_last=True)
    assert torch.equal(maps.tokens(image), last.tokens(image.permute(0, 2, 3, 1)))


def test_other_states_are_refused():
    with pytest.raises(
        UserError, match=r"layer 'x' has shape \[3\]: name a layer that gives a vector, tokens or a feature map"
    ):
        Layout.of(torch.rand(3), where="layer 'x'")


def test_grids_are_averaged_and_interpolated():
    large, small = Layout("map", 1, 16, (4, 4)), Layout("tokens", 1, 5, (2, 2), 1)
    values = torch.arange(16.0).view(1, 16, 1)
    found = large.spread(values, small).flatten().tolist()
    quarters = [(0 + 1 + 4 + 5) / 4, (2 + 3 + 6 + 7) / 4, (8 + 9 + 12 + 13) / 4, (10 + 11 + 14 + 15) / 4]
    assert found == [7.5, *quarters]  # the token in front gets the mean of all
    back = small.spread(torch.tensor(found).view(1, 5, 1), large).view(4, 4)
    corners = [back[0, 0], back[0, 3], back[3, 0], back[3, 3]]
    assert [corner.item() for corner in corners] == quarters
    assert back[0, 1].item() == pytest.approx(0.75 * quarters[0] + 0.25 * quarters[1])


def test_a_token_in_front_stays_where_both_have_one():
    large, small = Layout("tokens", 1, 17, (4, 4), 1), Layout("tokens", 1, 5, (2, 2), 1)
    values = torch.cat([torch.tensor([70.0]), torch.arange(16.0)]).view(1, 17, 1)
    found = large.spread(values, small).flatten().tolist()
    assert found == [70.0, 2.5, 4.5, 10.5, 12.5]
    assert small.spread(torch.tensor(found).view(1, 5, 1), large).flatten()[0] == 70.0


def test_a_token_that_joins_later_is_not_asked_for_before():
    """As in CaiT, whose class token joins behind most of its blocks."""
    assert Layout.of(torch.rand(3, 16, 5), front=1) == Layout("tokens", 5, 16, (4, 4))
    assert Layout.of(torch.rand(3, 17, 5), front=1) == Layout("tokens", 5, 17, (4, 4), 1)
    assert Layout.of(torch.rand(3, 18, 5), front=1) == Layout("tokens", 5, 18, None, 1)


def test_as_many_places_of_another_grid_are_resized():
    wide, square = Layout("map", 1, 16, (2, 8)), Layout("map", 1, 16, (4, 4))
    found = wide.spread(torch.arange(16.0).view(1, 16, 1), square).view(4, 4)
    columns = torch.tensor([0.5, 2.5, 4.5, 6.5])  # means of two neighbours
    torch.testing.assert_close(found, torch.stack([columns, columns + 2, columns + 6, columns + 8]))


def test_as_many_tokens_stay_what_they_are_and_without_grids_all_get_the_mean():
    tokens = torch.rand(2, 7, 3)
    sequence = Layout("tokens", 3, 7, None)
    assert sequence.spread(tokens, Layout("tokens", 9, 7, None)) is tokens
    spread = sequence.spread(tokens, Layout("tokens", 3, 4, (2, 2)))
    torch.testing.assert_close(spread, tokens.mean(1, keepdim=True).expand(2, 4, 3))
    vector = Layout("vector", 3, 1, (1, 1))
    torch.testing.assert_close(vector.spread(tokens[:, :1], Layout("map", 3, 6, (2, 3))), tokens[:, :1].expand(2, 6, 3))
