"""A learning-rate schedule written as arithmetic in the config, such as "0.95 ** epoch"."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

from simpleeval import SimpleEval

from utils.errors import nearest

FUNCTIONS = {"min": min, "max": max, "abs": abs, "sqrt": math.sqrt, "exp": math.exp, "log": math.log, "cos": math.cos}


def _power(base: float, exponent: float) -> float:
    return float(base) ** float(exponent)  # floats overflow with an error, integers would fill the memory


# Whatever is not one of these is not arithmetic: attributes, subscripts, strings, assignments, several statements.
NODES = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Call, ast.Name, ast.Load, ast.Constant)
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
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{text!r} is not an expression: {error}") from None
    for node in ast.walk(tree):  # branches that are not taken are looked at too
        problem = _problem(node, {variable, "pi", *FUNCTIONS})
        if problem:
            raise ValueError(f"{text!r}: {problem}")
    evaluator = SimpleEval(operators=OPERATORS, functions=FUNCTIONS)

    def function(value: int) -> float:
        evaluator.names = {variable: float(value), "pi": math.pi}
        try:
            result = evaluator.eval(text, previously_parsed=tree.body)
        except Exception as error:  # simpleeval's own errors and arithmetic's: all of them mean a bad expression
            raise ValueError(f"{text!r} at {variable} = {value}: {error}") from None
        if isinstance(result, bool) or not isinstance(result, int | float) or not math.isfinite(result):
            raise ValueError(f"{text!r} at {variable} = {value} is {result!r}, not a finite number")
        return float(result)

    function(0)
    return function


def _problem(node: ast.AST, names: set[str]) -> str | None:
    """Return why the node does not belong to arithmetic on `names`, or None where it does."""
    if isinstance(node, ast.Name) and node.id not in names:
        return f"unknown name {node.id!r}; {nearest(node.id, names)}"
    is_number = not isinstance(node, ast.Constant) or type(node.value) in (int, float)
    if not isinstance(node, (*NODES, *OPERATORS)) or not is_number:
        return f"{type(node).__name__} is not arithmetic on {', '.join(sorted(names))}"
    return None
