"""The rule by which a final number is read: one commitment, or no answer."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wuxing.task.arithmetic import worked
from wuxing.task.number import final_number


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("12", 12),
        ("  12. ", 12),
        ("The answer is 12.", 12),
        ("The answer is: 12", 12),
        ("7 + 5 = 12", 12),
        ("27 + 45 = 60 + 12 = 72", 72),
        ("7 + 5 is 12", 12),
        ("7 plus 5 equals 12!", 12),
        ("First I thought = 11, but the answer is 12", 12),
        ("5 - 7 = -2", -2),
        ("5 − 7 = −2", -2),
        ("1,234", 1234),
        ("12.50", Decimal("12.5")),
        ("答案是12。", 12),
        ("７ + ５ = １２", 12),
        ("#### 42", 42),
        ("", None),
        ("I do not know.", None),
        ("What is 7 + 5?", None),
        ("7 + 5 =", None),
        ("7 + 5", None),
        ("12 or 13", None),
        ("7 + 5 = 12 or 13", None),
        ("11, 12, 13", None),
        ("The answer is 12 13", None),
        ("= 60 + 12", None),
        ("1 2 3 4 5 6 7 8 9 10 11 12", None),
    ],
)
def test_reads_the_one_committed_number(reply: str, number: Decimal | None) -> None:
    assert final_number(reply) == number


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=6))
def test_several_numbers_are_never_an_answer(numbers: list[int]) -> None:
    assert final_number(" or ".join(map(str, numbers))) is None


@given(st.integers(0, 9999), st.integers(0, 9999), st.sampled_from(["add", "subtract", "multiply"]))
def test_every_step_of_a_worked_reply_is_true_and_its_end_is_read(a: int, b: int, operation: str) -> None:
    a, b = max(a, b), min(a, b)
    reply = worked(operation, a, b)
    values = {eval(step) for step in reply.split(" = ")}
    assert values == {int(final_number(reply) or 0)}
