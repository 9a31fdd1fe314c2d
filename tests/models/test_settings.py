"""The keys of a training."""

from __future__ import annotations

import pytest

from models.training.settings import TrainSettings, rate_factor


def test_learning_rates_rise_stay_and_fall() -> None:
    keys = {"model_dir": "", "output": "", "examples": ["x"]}
    linear = TrainSettings(**keys, schedule="linear", warmup=0.1, decay=0.6)
    cosine = TrainSettings(**keys, schedule="cosine", warmup=0.0, decay=1.0)
    factors = [rate_factor(update, 100, linear) for update in range(100)]
    assert factors[0] == pytest.approx(0.1) and set(factors[10:40]) == {1.0} and factors[-1] == pytest.approx(1 / 60)
    falling = [rate_factor(update, 100, cosine) for update in range(100)]
    assert falling[50] == pytest.approx(0.5) and falling == sorted(falling, reverse=True)
    constant = TrainSettings(**keys, schedule="constant", warmup=0.0)
    assert {rate_factor(update, 100, constant) for update in range(100)} == {1.0}
