"""A schedule written as arithmetic gives what Python gives for the same formula, and anything else is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from parse_config.expression import parse_expression

FORMULAS: dict[str, Callable[[int], float]] = {
    "0.95 ** epoch": lambda epoch: 0.95**epoch,
    "1": lambda epoch: 1,
    "-epoch + +2": lambda epoch: -epoch + 2,
    "1 / (1 + epoch)": lambda epoch: 1 / (1 + epoch),
    "0.1 ** (epoch // 30)": lambda epoch: 0.1 ** (epoch // 30),
    "epoch % 7 * 2 - 1": lambda epoch: epoch % 7 * 2 - 1,
    "min(1, (epoch + 1) / 10)": lambda epoch: min(1, (epoch + 1) / 10),
    "max(0.1, 1 - epoch / 50)": lambda epoch: max(0.1, 1 - epoch / 50),
    "0.5 * (1 + cos(pi * epoch / 50))": lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / 50)),
    "exp(-epoch) + sqrt(epoch) + log(epoch + 1) + abs(-epoch)": lambda epoch: (
        math.exp(-epoch) + math.sqrt(epoch) + math.log(epoch + 1) + abs(-epoch)
    ),
    "1 if epoch < 5 else 0.1": lambda epoch: 1 if epoch < 5 else 0.1,
    "1 if epoch >= 5 else 2 if epoch > 3 else 3": lambda epoch: 1 if epoch >= 5 else 2 if epoch > 3 else 3,
}


@pytest.mark.parametrize("text", FORMULAS)
def test_the_function_is_the_formula_that_is_written_down(text: str) -> None:
    function = parse_expression(text, "epoch")
    values = [function(epoch) for epoch in (0, 1, 2, 4, 5, 29, 30, 99)]
    assert values == [FORMULAS[text](epoch) for epoch in (0, 1, 2, 4, 5, 29, 30, 99)]
    assert all(type(value) is float for value in values)


def test_the_variable_has_the_name_that_it_is_given() -> None:
    assert parse_expression("step / 4", "step")(10) == 2.5
    with pytest.raises(ValueError, match="epoch"):
        parse_expression("epoch / 4", "step")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.95 **",
        "(1",
        "epochs",
        "epoch == 1",
        "lambda epoch: 1",
        "[1][0]",
        "[1 for _ in '1']",
        "{1: 2}[1]",
        "__import__('os').system('true')",
        "open('x')",
        "eval('1')",
        "().__class__",
        "min.__self__",
        "epoch.__class__",
        "sin(epoch)",
        "epoch << 2",
        "'text'",
        "True",
        "epoch < 1",
        "1 +" * 100 + "1",
    ],
)
def test_what_is_not_arithmetic_on_the_known_names_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expression|at epoch = 0|longer than|is not arithmetic|unknown name"):
        parse_expression(text, "epoch")


@pytest.mark.parametrize("text", ["1 / epoch", "log(epoch)", "sqrt(epoch - 1)", "10 ** 400", "(epoch - 1) ** 0.5"])
def test_what_has_no_finite_real_value_at_the_start_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="at epoch = 0"):
        parse_expression(text, "epoch")


@pytest.mark.parametrize(("text", "value"), [("1 / (3 - epoch)", 3), ("10 ** (100 * epoch)", 4), ("log(2 - epoch)", 2)])
def test_a_later_value_that_is_not_finite_is_an_error_that_says_where(text: str, value: int) -> None:
    function = parse_expression(text, "epoch")
    assert math.isfinite(function(value - 1))
    with pytest.raises(ValueError, match=f"at epoch = {value}"):
        function(value)


def test_a_power_tower_overflows_at_once_instead_of_filling_the_memory() -> None:
    with pytest.raises(ValueError, match="at epoch = 0"):
        parse_expression("9 ** 9 ** 9 ** 9", "epoch")


def test_two_functions_of_one_text_do_not_share_their_variable() -> None:
    one, other = parse_expression("epoch + 1", "epoch"), parse_expression("epoch + 1", "epoch")
    assert [one(1), other(10), one(2)] == [2.0, 11.0, 3.0]


@pytest.mark.parametrize(
    "text", ["2;3", "1\n2", "x=1", "'a' * 2000000000", "'%1000000000d' % 1", "1 if epoch < 5 else epch", "epoch.real"]
)
def test_what_is_not_one_arithmetic_expression_is_refused_before_it_is_evaluated(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not arithmetic|not an expression|did you mean 'epoch'"):
        parse_expression(text, "epoch")
