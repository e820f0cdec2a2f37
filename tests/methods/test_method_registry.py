"""Methods by name."""

import pytest

from osmose.errors import UserError
from osmose.methods import METHODS, find_method


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(UserError, match=r"^unknown method 'distil': did you mean 'distill'\?$"):
        find_method("distil")


def test_every_method_says_what_it_is_and_where_it_comes_from():
    for method in METHODS.values():
        assert method.summary
        assert method.source
        assert "\n" not in method.summary
