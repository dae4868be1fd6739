"""Which packets a loss model takes. Each model is a callable: True = the next packet is lost."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from app.netem.distributions import CorrelatedRandom
from app.netem.spec import GilbertElliottLoss, Loss, RandomLoss, StateLoss

LossProcess = Callable[[], bool]


def loss_process(loss: Loss | None, seed: int) -> LossProcess:
    """The losses of `loss`, from the beginning, repeatable under `seed`."""
    match loss:
        case None:
            return lambda: False
        case RandomLoss(probability, correlation):
            numbers = CorrelatedRandom(seed, correlation)
            return lambda: numbers.below(probability)
        case StateLoss():
            return FourStates(loss, seed)
        case GilbertElliottLoss():
            return GilbertElliott(loss, seed)


class FourStates:
    """The GI model of `loss state`, begun in state 1."""

    def __init__(self, loss: StateLoss, seed: int) -> None:
        self._loss = loss
        self._random = Random(seed)
        self._state = 1

    def __call__(self) -> bool:
        draw = self._random.random()
        loss = self._loss
        match self._state:
            case 1:
                if draw < loss.p14:
                    self._state = 4
                elif draw < loss.p14 + loss.p13:
                    self._state = 3
            case 2:
                if draw < loss.p23:
                    self._state = 3
            case 3:
                if draw < loss.p32:
                    self._state = 2
                elif draw < loss.p32 + loss.p31:
                    self._state = 1
            case _:
                self._state = 1
        return self._state >= 3


class GilbertElliott:
    """`loss gemodel`, begun in the good state; a packet meets the state left by those before it."""

    def __init__(self, loss: GilbertElliottLoss, seed: int) -> None:
        self._loss = loss
        self._random = Random(seed)
        self._bad = False

    def __call__(self) -> bool:
        loss = self._loss
        leave, lose = (loss.r, loss.bad_loss) if self._bad else (loss.p, loss.good_loss)
        if self._random.random() < leave:
            self._bad = not self._bad
        return self._random.random() < lose
