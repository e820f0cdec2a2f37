"""The engine's settings."""

import pytest

from osmose.engine.settings import Training
from osmose.errors import UserError


@pytest.mark.parametrize(
    "setting",
    [
        {"epochs": 0}, {"batch_size": 0}, {"accumulate": 0}, {"devices": 0}, {"devices": -1}, {"log_every": 0},
        {"threads": 0}, {"checkpoint_every": 0}, {"workers": -1},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_one_line(setting):
    ((key, value),) = setting.items()
    with pytest.raises(UserError, match=rf"^key '{key}' is {value}: set it to at least .*$"):
        Training(**setting)
