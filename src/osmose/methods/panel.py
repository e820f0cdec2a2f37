"""The frozen networks that speak in a logit method, and the target that says which of them teaches a sample."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from osmose.errors import UserError
from osmose.signals import Frozen, teachers
from osmose.targets import Choice, FlipRule, find_target
from osmose.targets.choice import NOBODY


class Panel:
    """Who may teach, and who does.

    Args:
        target: who teaches which sample: a name, or who teaches positive, negative and neutral flips.
        frozen: "teacher1", "teacher2", ...; and "initial", the initial student.
        regression: whether the networks give one number a sample and no classes.

    Attributes:
        target: the target.
        name: what people call it.
        teachers: the teachers, in order.
        initial: the initial student; None where it was not given.
        roles: the roles of those whose logits the target asks for.
        speaker_roles: the roles of `speakers`.

    Raises:
        UserError: when the target takes fewer teachers, or compares classes that the networks do not have.
    """

    def __init__(self, target: str | FlipRule, frozen: Mapping[str, Frozen], *, regression: bool) -> None:
        self.target = find_target(target)
        self.name = target if isinstance(target, str) else "by a rule"
        given = teachers(frozen)
        self.teachers = [frozen[role] for role in given]
        self.initial = frozen.get("initial")
        self.speaker_roles = given if self.target.teacher else ["initial"]
        self.roles = list(dict.fromkeys([*self.speaker_roles, *(["initial"] if self.target.initial else [])]))
        self.regression = regression
        if len(self.teachers) > 1 and not self.target.several:
            raise UserError(f"target '{target}' takes one teacher, {len(self.teachers)} given: use target 'partition'")
        if regression and not self.target.numbers:
            raise UserError(
                f"target '{target}' compares classes and the student gives one number: use target 'teacher' or 'partition'"
            )

    def needs(self) -> set[str]:
        """What the pair check asks on behalf of the target; see `Method.needs`."""
        needs = {"labels", "whole labels"} if self.target.labels else set()
        if self.target.teacher:
            needs |= {"teacher", "same outputs" if self.regression else "same classes"}
        return needs

    def who(self, teachers: Sequence[str]) -> str:
        """Who may teach, for people, given the teachers' names."""
        return " and ".join(teachers) if self.target.teacher else "itself"

    def speakers(self) -> list[Frozen]:
        """The teachers, or the initial student where the target has no others."""
        return self.teachers if self.target.teacher else [self._initial()]

    def choose(self, student: Tensor, labels: Tensor | None, say: Callable[[Frozen], Tensor]) -> Choice:
        """Who teaches each sample of a batch, and with which logits.

        Args:
            student: the student's logits [n, c].
            labels: int64 [n]; None where the target needs none.
            say: the logits [n, c] that a frozen network gives the batch; only asked of those whom the target needs.
        """
        teachers = [say(teacher) for teacher in self.teachers] if self.target.teacher else []
        initial = say(self._initial()) if self.target.initial else None
        return self.target.choose(student, initial, teachers, labels)

    def kept(self, choice: Choice) -> Tensor | None:
        """Booleans [n]: which samples anybody teaches; None where all of them are."""
        return choice.source != NOBODY if self.target.nobody else None

    def _initial(self) -> Frozen:
        assert self.initial is not None, "execution always gives it"
        return self.initial
