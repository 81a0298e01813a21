import pytest
import torch

from twodmse.encoder.pooling import pool

HIDDEN = torch.arange(2 * 3 * 2, dtype=torch.float32).reshape(2, 3, 2)  # (2, 3, 2)
RIGHT = torch.tensor([[1, 1, 0], [1, 1, 1]])
LEFT = torch.tensor([[0, 1, 1], [1, 1, 1]])


@pytest.mark.parametrize(
    ("mode", "mask", "expected"),
    [
        ("mean", RIGHT, [[1.0, 2.0], [8.0, 9.0]]),  # ([0,1]+[2,3])/2, ([6,7]+[8,9]+[10,11])/3
        ("mean", LEFT, [[3.0, 4.0], [8.0, 9.0]]),
        ("cls", RIGHT, [[0.0, 1.0], [6.0, 7.0]]),
        ("cls", LEFT, [[2.0, 3.0], [6.0, 7.0]]),  # the first token, not the padding before it
        ("last", RIGHT, [[2.0, 3.0], [10.0, 11.0]]),
        ("last", LEFT, [[4.0, 5.0], [10.0, 11.0]]),
    ],
)
def test_pool_by_hand(mode, mask, expected):
    out = pool(HIDDEN, mask, mode)
    assert out.shape == (2, 2)
    assert torch.equal(out, torch.tensor(expected))


def test_pool_is_float32_whatever_comes_in():
    half = torch.full((1, 3, 2), 0.1, dtype=torch.bfloat16)
    assert pool(half, torch.ones(1, 3), "mean").dtype == torch.float32


def test_unknown_pooling_is_named():
    with pytest.raises(ValueError, match=r"'max'.*mean, cls, last"):
        pool(HIDDEN, RIGHT, "max")
