"""Token distillation against the plain formula in float64, its gradients, its memory."""

import gc
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from osmose.errors import UserError
from osmose.losses.heads import Head
from osmose.losses.language import Objective, SampledTokens, States, TopTokens, distil_tokens

ROWS, STUDENT, TEACHER, VOCABULARY = 11, 5, 6, 37
NAMES = ("forward", "reverse", "jensen-shannon", "skewed")


def made(vocabulary=VOCABULARY, bias=False, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    student = torch.randn(ROWS, STUDENT, dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, STUDENT, dtype=dtype, requires_grad=True)
    offset = torch.randn(VOCABULARY, dtype=dtype, requires_grad=True) if bias else None
    teacher, teacher_weight = torch.randn(ROWS, TEACHER, dtype=dtype), torch.randn(vocabulary, TEACHER, dtype=dtype)
    labels = torch.randint(0, min(vocabulary, VOCABULARY), (ROWS,))
    labels[[0, 4, 5]] = -100
    return student, weight, offset, teacher, teacher_weight, labels


def kl(p, q):
    return (p * (p.log() - q.log())).sum(-1)


def plain(student, weight, offset, teacher, teacher_weight, labels, objective, scale=1.0, cap=None):
    """Eq 1 written down with whole matrices of logits."""
    rows = labels != -100
    vocabulary = min(len(weight), len(teacher_weight))
    z = scale * (student @ weight.T + (0 if offset is None else offset))
    z = (z if cap is None else cap * torch.tanh(z / cap))[rows]
    z_t = (teacher @ teacher_weight.T)[rows, :vocabulary]
    s, t = (z[:, :vocabulary] / objective.temperature).softmax(-1), (z_t / objective.temperature).softmax(-1)
    b = objective.beta
    m = b * t + (1 - b) * s
    distance = {
        "forward": lambda: kl(t, s),
        "reverse": lambda: kl(s, t),
        "jensen-shannon": lambda: (b * kl(t, m) + (1 - b) * kl(s, m)) / (b * (1 - b)),
        "skewed": lambda: kl(t, m),
    }[objective.divergence]()
    hard = F.cross_entropy(z, labels[rows])
    loss = objective.alpha * hard + (1 - objective.alpha) * objective.temperature**2 * distance.mean()
    return loss, hard, distance.mean()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("form", ["plain", "bias", "scale and cap", "smaller vocabulary", "larger vocabulary"])
def test_loss_and_gradients_are_those_of_the_formula(name, temperature, alpha, form):
    sizes = {"smaller vocabulary": VOCABULARY - 2, "larger vocabulary": VOCABULARY + 3}
    numbers = made(sizes.get(form, VOCABULARY), bias=form == "bias")
    student, weight, offset, teacher, teacher_weight, labels = numbers
    shape = {"scale": 1.5, "cap": 3.0} if form == "scale and cap" else {}
    objective = Objective(alpha, temperature, name, beta=0.3)
    expected, *both = plain(*numbers, objective, **shape)
    learned = [one for one in (student, weight, offset) if one is not None]
    for rows in (1, 3, 100):
        loss, entropy, distance = distil_tokens(
            student, Head(weight, offset, **shape), labels, teacher=States(teacher, Head(teacher_weight)),
            objective=objective, rows=rows,
        )  # fmt: skip
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close([entropy, distance], [one.detach() for one in both])
        for one, other in zip(
            torch.autograd.grad(loss, learned), torch.autograd.grad(expected, learned, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_by_differences(name):
    *learned, teacher, teacher_weight, labels = made(bias=True)

    def loss(student, weight, offset):
        return distil_tokens(
            student, Head(weight, offset, cap=4.0), labels, teacher=States(teacher, Head(teacher_weight)),
            objective=Objective(0.3, 1.7, name, 0.2), rows=4,
        )[0]  # fmt: skip

    gradients = torch.autograd.grad(loss(*learned), learned)
    for trial in range(5):
        torch.manual_seed(trial)
        way = [1e-5 * torch.randn_like(one) for one in learned]
        up, down = (loss(*(one + sign * step for one, step in zip(learned, way, strict=True))) for sign in (1, -1))
        expected = sum((one * step).sum() for one, step in zip(gradients, way, strict=True))
        torch.testing.assert_close((up - down) / 2, expected, rtol=1e-6, atol=1e-12)


def test_it_has_one_backward_pass():
    student, weight, *_, labels = made()
    loss = distil_tokens(student, Head(weight), labels)[0]
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="it has one backward pass"):
        loss.backward()


def test_forward_divergences_gradient_in_the_logits_is_the_difference_of_the_distributions():
    """With the identity for a head: T (p_s - p_t) / n (spec 5.2)."""
    torch.manual_seed(0)
    z, z_t = torch.randn(4, 7, dtype=torch.float64, requires_grad=True), torch.randn(4, 7, dtype=torch.float64)
    eye = Head(torch.eye(7, dtype=torch.float64))
    objective = Objective(alpha=0.0, temperature=3.0)
    distil_tokens(z, eye, torch.zeros(4, dtype=torch.int64), teacher=States(z_t, eye), objective=objective)[
        0
    ].backward()
    torch.testing.assert_close(z.grad, 3.0 * ((z.detach() / 3).softmax(-1) - (z_t / 3).softmax(-1)) / 4)


@pytest.mark.parametrize(("name", "end"), [("forward", 0.0), ("reverse", 1.0)])
def test_the_jensen_shannon_divergence_is_continuous_at_its_ends(name, end):
    student, weight, _, teacher, teacher_weight, labels = made()
    weight, teacher_weight = 0.3 * weight.detach(), 0.3 * teacher_weight

    def value(divergence, beta):
        return distil_tokens(
            student, Head(weight), labels, teacher=States(teacher, Head(teacher_weight)),
            objective=Objective(0.0, 1.0, divergence, beta),
        )[0].item()  # fmt: skip

    assert value("jensen-shannon", end) == value(name, 0.5)
    near = abs(end - 1e-5)
    assert value("jensen-shannon", near) == pytest.approx(value(name, 0.5), rel=1e-3)


def test_at_one_half_student_and_teacher_may_change_places():
    torch.manual_seed(0)
    a, b, head = (
        torch.randn(6, 5, dtype=torch.float64),
        torch.randn(6, 5, dtype=torch.float64),
        Head(torch.randn(9, 5, dtype=torch.float64)),
    )
    labels = torch.zeros(6, dtype=torch.int64)
    objective = Objective(0.0, 1.0, "jensen-shannon", 0.5)
    one, other = (
        distil_tokens(x, head, labels, teacher=States(y, head), objective=objective)[0] for x, y in ((a, b), (b, a))
    )
    torch.testing.assert_close(one, other)


def test_labels_alone():
    student, weight, offset, _, _, labels = made(bias=True)
    loss, entropy, distance = distil_tokens(student, Head(weight, offset), labels, rows=4)
    expected = F.cross_entropy(student @ weight.T + offset, labels)
    torch.testing.assert_close(loss, expected)
    assert (entropy, distance) == (loss, 0)
    learned = student, weight, offset
    for one, other in zip(torch.autograd.grad(loss, learned), torch.autograd.grad(expected, learned), strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_counts():
    student, weight, _, teacher, teacher_weight, labels = made()
    loss, _, _ = distil_tokens(student, Head(weight), labels.fill_(-100), teacher=States(teacher, Head(teacher_weight)))
    loss.backward()
    assert loss == 0
    assert not student.grad.any()
    assert not weight.grad.any()


def test_parts_of_a_batch_add_up_to_it():
    """With the whole number of rows given, as accumulation and several processes need it."""
    student, weight, _, teacher, teacher_weight, labels = made()
    whole, *parts = (
        distil_tokens(
            student[a:b], Head(weight), labels[a:b], teacher=States(teacher[a:b], Head(teacher_weight)),
            count=int((labels != -100).sum()),
        )[0]
        for a, b in ((0, 11), (0, 4), (4, 11))
    )  # fmt: skip
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(torch.autograd.grad(sum(parts), weight), torch.autograd.grad(whole, weight))


def test_tied_embeddings_get_both_gradients():
    torch.manual_seed(0)
    embedding = torch.randn(9, 5, dtype=torch.float64, requires_grad=True)
    tokens, labels = torch.tensor([1, 4, 7, 2]), torch.tensor([4, 7, 2, 8])
    hidden = torch.tanh(embedding[tokens])
    (gradient,) = torch.autograd.grad(distil_tokens(hidden, Head(embedding), labels)[0], embedding)
    (expected,) = torch.autograd.grad(F.cross_entropy(torch.tanh(embedding[tokens]) @ embedding.T, labels), embedding)
    torch.testing.assert_close(gradient, expected)


def test_only_what_asks_for_gradients_gets_them():
    student, weight, _, teacher, teacher_weight, labels = made()
    for learns in itertools.product((False, True), repeat=2):
        leaves = [one.detach().requires_grad_(flag) for one, flag in zip((student, weight), learns, strict=True)]
        loss = distil_tokens(leaves[0], Head(leaves[1]), labels, teacher=States(teacher, Head(teacher_weight)))[0]
        assert loss.requires_grad == any(learns)
        if any(learns):
            loss.backward()
        assert [one.grad is not None for one in leaves] == list(learns)


@pytest.mark.parametrize("name", NAMES)
def test_float32_and_bfloat16(name):
    """float32 to 1e-5; bfloat16 states and head give what they give when they are widened first, up to the rounding of logits."""
    objective = Objective(0.3, 2.0, name, 0.3)
    student, weight, _, teacher, teacher_weight, labels = (None if one is None else one.detach() for one in made())
    exact, _, _ = plain(student, weight, None, teacher, teacher_weight, labels, objective)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        given = [one.to(dtype).requires_grad_() for one in (student, weight)]
        loss = distil_tokens(
            given[0],
            Head(given[1]),
            labels,
            teacher=States(teacher.to(dtype), Head(teacher_weight.to(dtype))),
            objective=objective,
        )[0]
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact.item(), rel=tolerance)
        loss.backward()
        assert {one.grad.dtype for one in given} == {dtype}


@pytest.mark.parametrize("name", NAMES)
def test_under_autocast_only_the_matrix_products_are_narrow(name):
    """The loss of the same logits rounded to bfloat16, with softmax and sums in float32; gradients in the parameters' types."""
    objective = Objective(0.3, 2.0, name, 0.3)
    student, weight, _, teacher, teacher_weight, labels = (None if one is None else one.detach() for one in made())
    given = [one.float().requires_grad_() for one in (student, weight)]
    heads = Head(given[1]), Head(teacher_weight.float())
    with torch.autocast("cpu", torch.bfloat16):
        loss = distil_tokens(
            given[0], heads[0], labels, teacher=States(teacher.float(), heads[1], True), objective=objective
        )[0]
    narrow = [one.bfloat16() for one in (student, weight, teacher, teacher_weight)]
    z, z_t = ((x @ w.T).double() for x, w in (narrow[:2], narrow[2:]))
    eye = torch.eye(VOCABULARY, dtype=torch.float64)
    wanted, _, _ = plain(z, eye, None, z_t, eye, labels, objective)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    loss.backward()
    exact = [one.detach().clone().requires_grad_() for one in (student, weight)]
    plain(*exact, None, teacher, teacher_weight, labels, objective)[0].backward()
    for ours, theirs in zip(given, exact, strict=True):
        assert ours.grad.dtype == torch.float32
        assert (ours.grad - theirs.grad).norm() < 0.03 * theirs.grad.norm()


@pytest.mark.parametrize("held", [1, 3, 4, 100])
def test_narrow_gradients_are_added_up_whatever_is_held(held, monkeypatch):
    """8 rows that count in chunks of 3: sums flushed in the middle, at the end, or after each chunk."""
    student, weight, _, teacher, teacher_weight, labels = (
        None if one is None else one.detach().float() for one in made()
    )
    labels = labels.long()
    found = {}
    for narrow in (True, False):
        monkeypatch.setattr("osmose.losses.language._HELD", held)
        leaf = weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            distil_tokens(student, Head(leaf), labels, teacher=States(teacher, Head(teacher_weight)), rows=3)[
                0
            ].backward()
        found[narrow] = leaf.grad
    assert (found[True] - found[False]).norm() < 0.01 * found[False].norm()


@pytest.mark.parametrize(("form", "name"), [*itertools.product(("states", "top"), NAMES), ("sampled", "forward")])
def test_extreme_logits_are_finite(form, name):
    head = Head(torch.eye(4) * 400)
    student, teacher = torch.eye(4)[:3].requires_grad_(), torch.eye(4)[1:]
    log_p = (400 * teacher).log_softmax(-1)
    top = log_p.topk(2)
    said = {
        "states": States(teacher, head),
        "top": of_top(log_p, 2),
        "sampled": SampledTokens(top.indices[:, :1], torch.ones(3, 1), torch.zeros(3)),
    }[form]
    loss = distil_tokens(
        student, head, torch.tensor([0, 1, 2]), teacher=said, objective=Objective(0.5, 1.0, name, 0.3)
    )[0]
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert (
        gradient.abs().max() <= 400 * 400
    )  # a probability's difference times the head's weight, and log-ratios up to 400


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("gap", [12.0, 25.0, 60.0])
def test_top_tokens_of_a_student_that_is_almost_sure(name, gap):
    """What it leaves to all others is far below the rounding of 1: float32 gives what float64 gives."""
    torch.manual_seed(0)
    z, z_t = torch.randn(3, 50), torch.randn(3, 50)
    z[:, 7] += gap
    z_t[:, 7] += gap / 2
    found = []
    for dtype in (torch.float32, torch.float64):
        logits = z.to(dtype, copy=True).requires_grad_()
        distil_tokens(
            logits, Head(torch.eye(50, dtype=dtype)), torch.tensor([7, 3, 7]),
            teacher=of_top(z_t.to(dtype).log_softmax(-1), 5), objective=Objective(0.5, 1.0, name, 0.3),
        )[0].backward()  # fmt: skip
        found.append(logits.grad.double())
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
    assert found[0].abs().max() < gap


def of_top(log_p, k):
    """A teacher's k most probable tokens."""
    top = log_p.topk(k)
    return TopTokens(top.indices, top.values, log_p.scatter(-1, top.indices, -torch.inf).logsumexp(-1))


@pytest.mark.parametrize(
    ("name", "temperature", "cap", "teachers", "narrow", "buffers"),
    [
        *((name, 1.0, None, 1, False, 3) for name in NAMES),
        ("forward", 2.0, None, 1, False, 4),
        ("forward", 1.0, 5.0, 1, False, 4),
        ("forward", 1.0, None, 2, False, 3),
        ("forward", 1.0, None, 1, True, 3),
    ],
)
def test_memory_beyond_the_gradients(name, temperature, cap, teachers, narrow, buffers):
    """Buffers of chunk x vocabulary; under autocast narrow heads, 200 rows held, their product, and what one product of a chunk
    with a narrow head takes: the logits, or what the library takes on this processor beside that of their gradient."""
    vocabulary, rows, chunk = 20_011, 200, 16
    torch.manual_seed(0)
    student, weight = torch.randn(rows, 8, requires_grad=True), torch.randn(vocabulary, 8, requires_grad=True)
    teacher, teacher_weight = torch.randn(rows, 8), torch.randn(vocabulary, 8)
    labels = torch.randint(vocabulary, (rows,))
    said = [States(teacher, Head(teacher_weight), narrow)] * teachers
    given = {"teacher": said, "objective": Objective(0.5, temperature, name, 0.3)}
    given["source"] = torch.arange(rows) % 2 if teachers > 1 else None

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            distil_tokens(student, Head(weight, cap=cap), labels, rows=chunk, **given)[0].backward()

    step()
    student.grad = weight.grad = None
    gc.collect()
    gradients = 4 * (student.numel() + weight.numel())
    of_autocast = 0
    if narrow:
        states, head, logits = (
            torch.zeros(shape, dtype=torch.bfloat16) for shape in ((chunk, 8), (vocabulary, 8), (chunk, vocabulary))
        )
        of_autocast = 2 * vocabulary * (2 * 8 + rows + 8) + max(
            _most(lambda: states @ head.t()), _most(lambda: logits @ head)
        )
    assert gradients < _most(step) <= gradients + buffers * chunk * vocabulary * 4 + of_autocast + 2**16


def _most(step):
    """Bytes that `step` takes at most, beyond what there is before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    level = top = 0
    memory = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(memory, key=lambda event: event.start_ns()):
        level += event.nbytes()
        top = max(top, level)
    return top


def distributions(teacher, teacher_weight, temperature):
    """A teacher's whole distribution at a temperature, float64 [n, v]."""
    return (teacher @ teacher_weight.T / temperature).log_softmax(-1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.0), (1.0, 0.5), (2.0, 0.5)])
def test_all_tokens_kept_are_the_whole_teacher(name, temperature, alpha):
    student, weight, offset, teacher, teacher_weight, labels = made(bias=True)
    objective = Objective(alpha, temperature, name, 0.3)
    top = of_top(distributions(teacher, teacher_weight, temperature), VOCABULARY)
    losses = [
        distil_tokens(student, Head(weight, offset, cap=4.0), labels, teacher=given, objective=objective, rows=4)[0]
        for given in (States(teacher, Head(teacher_weight)), top)
    ]
    torch.testing.assert_close(*losses)
    for whole, kept in zip(*(torch.autograd.grad(loss, (student, weight, offset)) for loss in losses), strict=True):
        torch.testing.assert_close(whole, kept)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.0), (1.0, 0.5), (2.0, 0.5)])
def test_top_tokens_are_compared_with_all_others_as_one(name, temperature, alpha):
    student, weight, _, teacher, teacher_weight, labels = made()
    rows = labels != -100
    top = distributions(teacher, teacher_weight, temperature).topk(5)
    z = student @ weight.T
    s = (z / temperature).softmax(-1).gather(-1, top.indices)
    s = torch.cat([s, 1 - s.sum(-1, keepdim=True)], -1)[rows]
    t = top.values.exp()
    t = torch.cat([t, 1 - t.sum(-1, keepdim=True)], -1)[rows]
    m = 0.3 * t + 0.7 * s
    distance = {
        "forward": lambda: kl(t, s), "reverse": lambda: kl(s, t), "skewed": lambda: kl(t, m),
        "jensen-shannon": lambda: (0.3 * kl(t, m) + 0.7 * kl(s, m)) / 0.21,
    }[name]()  # fmt: skip
    expected = alpha * F.cross_entropy(z, labels) + (1 - alpha) * temperature**2 * distance.mean()
    loss = distil_tokens(
        student, Head(weight), labels, teacher=of_top(distributions(teacher, teacher_weight, temperature), 5),
        objective=Objective(alpha, temperature, name, 0.3), rows=4,
    )[0]  # fmt: skip
    torch.testing.assert_close(loss, expected)
    learned = student, weight
    for one, other in zip(torch.autograd.grad(loss, learned), torch.autograd.grad(expected, learned), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_tokens_that_the_teacher_lacks_are_left_out_of_every_form(name, temperature):
    student, weight, _, teacher, teacher_weight, labels = made(vocabulary=VOCABULARY - 4)
    log_p = distributions(teacher, teacher_weight, temperature)
    objective = Objective(0.4, temperature, name, 0.3)
    expected = plain(student, weight, None, teacher, teacher_weight, labels, objective)[0]
    wanted = torch.autograd.grad(expected, (student, weight))
    for said in (States(teacher, Head(teacher_weight)), of_top(log_p, VOCABULARY - 4)):
        loss = distil_tokens(
            student, Head(weight), labels, teacher=said, vocabulary=VOCABULARY - 4, objective=objective, rows=4
        )[0]
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, (student, weight)), wanted)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_each_position_learns_from_its_teacher(temperature):
    """Two dense teachers, and top tokens of a third: what each gives for its own positions alone, added up."""
    student, weight, _, teacher, teacher_weight, labels = made()
    other = torch.flip(teacher, [0])
    teachers = [
        States(teacher, Head(teacher_weight)),
        States(other, Head(teacher_weight)),
        of_top(distributions(other, teacher_weight, temperature), 5),
    ]
    source = torch.arange(ROWS) % 3
    count = int((labels != -100).sum())
    objective = Objective(0.3, temperature)
    whole = distil_tokens(student, Head(weight), labels, teacher=teachers, source=source, objective=objective, rows=2)
    parts = [
        distil_tokens(
            student, Head(weight), labels.where(source == number, -100), teacher=one, objective=objective, count=count
        )
        for number, one in enumerate(teachers)
    ]
    for one, others in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(one, sum(others))
    torch.testing.assert_close(
        torch.autograd.grad(whole[0], (student, weight)),
        torch.autograd.grad(sum(part[0] for part in parts), (student, weight)),
    )
    with pytest.raises(ValueError, match="source says who of several teachers"):
        distil_tokens(student, Head(weight), labels, teacher=teachers)


@pytest.mark.parametrize(("temperature", "alpha"), [(1.0, 0.0), (2.0, 0.5)])
def test_sampled_tokens_have_the_whole_teachers_loss_and_gradient_on_average(temperature, alpha):
    """Over 4,000 draws of 20 tokens, to five standard errors; a single draw is far from it."""
    student, weight, _, teacher, teacher_weight, labels = made()
    objective = Objective(alpha, temperature)
    whole = distil_tokens(
        student, Head(weight), labels, teacher=States(teacher, Head(teacher_weight)), objective=objective
    )[0]
    expected = torch.cat([whole.detach().reshape(1), torch.autograd.grad(whole, student)[0].flatten()])
    log_p = distributions(teacher, teacher_weight, temperature)
    entropy = -(log_p.exp() * log_p).sum(-1)
    found = []
    torch.manual_seed(0)
    for _ in range(4000):
        ids = log_p.exp().multinomial(20, replacement=True)
        sampled = SampledTokens(ids, torch.full(ids.shape, 1 / 20, dtype=torch.float64), entropy)
        loss = distil_tokens(student, Head(weight), labels, teacher=sampled, objective=objective)[0]
        found.append(torch.cat([loss.detach().reshape(1), torch.autograd.grad(loss, student)[0].flatten()]))
    draws = torch.stack(found)
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - expected).abs() <= 5 * error + 1e-12).all()
    assert (draws[0] - expected).abs().max() > 100 * error.mean()


def test_only_the_forward_divergence_can_be_had_from_samples():
    student, weight, *_, labels = made()
    sampled = SampledTokens(torch.zeros(ROWS, 1, dtype=torch.int64), torch.ones(ROWS, 1), torch.zeros(ROWS))
    with pytest.raises(UserError, match="divergence reverse cannot be had from sampled tokens"):
        distil_tokens(student, Head(weight), labels, teacher=sampled, objective=Objective(divergence="reverse"))


def test_mistakes():
    student, weight, _, teacher, teacher_weight, labels = made()
    with pytest.raises(UserError, match=r"the student's head has weights \[37, 5\] for hidden states of 6"):
        distil_tokens(teacher, Head(weight), labels)
    with pytest.raises(UserError, match=r"the teacher's head has weights \[37, 6\] for hidden states of 5"):
        distil_tokens(student, Head(weight), labels, teacher=States(student.detach(), Head(teacher_weight)))
    with pytest.raises(UserError, match="unknown divergence 'forwards': did you mean 'forward'"):
        distil_tokens(student, Head(weight), labels, objective=Objective(divergence="forwards"))
    with pytest.raises(UserError, match="beta"):
        distil_tokens(student, Head(weight), labels, objective=Objective(divergence="skewed", beta=1.0))
