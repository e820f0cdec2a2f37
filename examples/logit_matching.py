"""A method in one file: the student's logits approach the teacher's (Ba and Caruana 2014)."""

from osmose.engine.method import Method, Step
from osmose.engine.optimiser import Optimiser
from osmose.methods import METHODS


class LogitMatching(Method):
    """Mean squared error between the student's and the teacher's logits.

    Args:
        student: the network that trains.
        frozen: "teacher1" and "initial".
        scale: what both are divided by.
        optimiser: the student's optimiser.
    """

    summary = "mean squared error of logits"
    source = "arXiv 1312.6184"

    def __init__(self, student, frozen, *, scale: float = 1.0, optimiser: Optimiser = Optimiser()):
        super().__init__()
        self.student, self.teacher, self.scale, self.optimiser = student, frozen["teacher1"], scale, optimiser

    def needs(self):
        return frozenset({"teacher", "same classes"})

    def players(self):
        return {"student": self.optimiser.player(self.student.parameters())}

    def forward(self, batch, clock):
        gap = self.student(batch.x).logits - self.teacher.signal(batch).logits
        return Step(loss=(gap / self.scale).square().mean())

    def products(self):
        return {"student": self.student}


METHODS["logit-matching"] = LogitMatching
