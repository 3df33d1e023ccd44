"""A learning-rate schedule written as arithmetic in the config, such as "0.95 ** epoch"."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

from simpleeval import SimpleEval

FUNCTIONS = {"min": min, "max": max, "abs": abs, "sqrt": math.sqrt, "exp": math.exp, "log": math.log, "cos": math.cos}


def _power(base: float, exponent: float) -> float:
    return float(base) ** float(exponent)  # floats overflow with an error, integers would fill the memory


OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def parse_expression(text: str, variable: str) -> Callable[[int], float]:
    """Return the function of `variable` (and of pi, min, max, abs, sqrt, exp, log, cos) that `text` writes down.

    Raises ValueError where `text` is anything but arithmetic on these names; so does the function where the result is
    no finite number. Nothing is ever given to `eval`: simpleeval walks the syntax tree.
    """
    if len(text) > 200:
        raise ValueError("longer than 200 characters")
    evaluator = SimpleEval(operators=OPERATORS, functions=FUNCTIONS)
    try:
        tree = evaluator.parse(text)
    except Exception as error:
        raise ValueError(f"{text!r} is not an expression: {error}") from None

    def function(value: int) -> float:
        evaluator.names = {variable: float(value), "pi": math.pi}
        try:
            result = evaluator.eval(text, previously_parsed=tree)
        except Exception as error:  # simpleeval's own errors and arithmetic's: all of them mean a bad expression
            raise ValueError(f"{text!r} at {variable} = {value}: {error}") from None
        if isinstance(result, bool) or not isinstance(result, int | float) or not math.isfinite(result):
            raise ValueError(f"{text!r} at {variable} = {value} is {result!r}, not a finite number")
        return float(result)

    function(0)
    return function
