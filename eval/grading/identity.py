"""Whether an expression is zero: True on proof or evidence at points, False where a point refutes it, None else.

A point refutes an identity where every part of the expression is real. Points are evidence between the places where
the expression is not analytic: the zeros of what stands in absolute values, maxima, minima and even roots. Where those
places cannot be computed, agreement at the points is no evidence and the answer is None. Floors and ceilings of linear
arguments are settled over one period; others are only ever refuted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, product

import mpmath
import sympy
from sympy import Abs, Dummy, Integer, Max, Min, Pow, Rational, Symbol, ceiling, floor
from sympy.core.function import AppliedUndef

from eval.grading.latex import Huge, Value

Decision = bool | None  # None: undecided

MAX_DEGREE = 60  # of polynomials that are expanded; higher ones are compared at points
MAX_CUTS = 24  # places on a line where an expression is not analytic
MAX_STEPS = 2_000  # jumps of floors and ceilings in one period
DIGITS, MAX_DIGITS, FAR_DIGITS = 30, 300, 5_000
_VALUES = "7/5 19/13 -11/7 2/9 -31/10 53/11 -3/8 5/7 23/6 -1/9 8/17 -59/13 101/9 13/4"
POINTS = [Rational(value) for value in _VALUES.split()]
FAR = [Rational(value) for value in ("5003/6", "-7001/9", "1000001/3", "-2000003/7", "61/2", "-97/2")]
LINES = [((0, 0), (1, 0)), ((1, 2), (3, 5)), ((3, 7), (5, -4)), ((-11, 2), (2, 3)), ((40, -90), (-6, 11))]
_STEPS = (floor, ceiling)


def every(decisions: Iterable[Decision]) -> Decision:
    """False if any is false, else None if any is undecided."""
    found = list(decisions)
    return False if False in found else None if None in found else True


def equal_values(left: Value, right: Value) -> Decision:
    """Exact equality of two expressions, or of two matrices entry by entry."""
    if isinstance(left, sympy.MatrixBase) or isinstance(right, sympy.MatrixBase):
        if not (isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase)):
            return False
        return left.shape == right.shape and every(map(equal_values, left, right))
    if left == right:
        return True
    if not (left.is_finite is not False and right.is_finite is not False):
        return False
    gap = left - right
    gap = gap.xreplace({call: Symbol(str(call)) for call in gap.atoms(AppliedUndef)})
    if gap.is_Rational:
        return bool(gap == 0)
    symbols = sorted(gap.free_symbols, key=str)
    if gap.has(Huge) and (decision := same_huge(left, right)) is not None:
        return decision
    return vanishes_everywhere(gap, symbols) if symbols else vanishes(gap)


# --- numbers ---------------------------------------------------------------------------------------------------


def vanishes(gap: Value) -> Decision:
    """Whether a number is zero: not if an approximation with guaranteed digits says so.

    Zero means below 10**-250 of the size of its terms, with more digits where a part is very large or very small.
    """
    if gap.is_Rational:
        return bool(gap == 0)
    sizes = [_size(part) for part in sympy.preorder_traversal(gap) if part.is_Pow or part.is_Function]
    digits = MAX_DIGITS + 2 * max((abs(size) for size in sizes if size is not None), default=0)
    if digits > FAR_DIGITS or gap.has(Huge):
        digits = MAX_DIGITS
        sizes.append(None)
    value = gap.evalf(DIGITS, maxn=digits)
    if not value.is_number or value.has(sympy.nan, sympy.zoo, sympy.oo, Huge):
        return None
    if not all(part.is_Float or part.is_Rational for part in value.as_real_imag()):
        return None
    scale = _scale(gap)
    if scale is None:
        return None
    small = bool(abs(value) <= scale * sympy.Float(10) ** (50 - digits))
    return None if small and None in sizes else small


def _size(part: Value) -> int | None:
    """The decimal exponent of a number; None where it has none that fits."""
    value = abs(part.evalf(5))
    if not value.is_Float and not value.is_Rational:
        return 0 if not part.has(Huge) else None
    return 0 if value == 0 else int(sympy.floor(sympy.log(value, 10).evalf(5)))


def _scale(value: Value) -> Value | None:
    """The size of the terms of a number before they cancel."""
    if value.is_Add or value.is_Mul:
        scales: list[Value] = [_scale(part) for part in value.args]
        if None in scales:
            return None
        return sum(scales) if value.is_Add else sympy.prod(scales)
    size = abs(value.evalf(15))
    return size if size.is_Float or size.is_Rational else None


# --- expressions -----------------------------------------------------------------------------------------------


def vanishes_everywhere(gap: Value, symbols: Sequence[Symbol]) -> Decision:
    """Whether an expression in these symbols is zero wherever it is defined and real."""
    degree = max((abs(power.exp) for power in gap.atoms(Pow) if power.exp.is_Integer), default=0)
    if degree > 20 * MAX_DEGREE:
        return None
    if gap.is_rational_function(*symbols) and not gap.has(Huge) and degree <= MAX_DEGREE:
        return bool(sympy.cancel(sympy.together(gap)) == 0)
    steps = [part for part in sympy.preorder_traversal(gap) if isinstance(part, _STEPS)]
    if len(symbols) == 1 and steps and (period := _over_a_period(gap, symbols[0], steps)) is not None:
        return _over_integers(gap, symbols) if period is False else True
    switches = _switches(gap)
    bases = [*POINTS, *FAR] if steps or switches or switches is None else POINTS
    seen = 0
    for start in range(len(bases)):
        at = {symbol: bases[(start + 5 * i) % len(bases)] + i for i, symbol in enumerate(symbols)}
        decision = _at(gap, at)
        if decision is False:
            return _over_integers(gap, symbols)
        seen += decision is True
        if seen == 4 and switches == [] and not steps:
            return True
    if steps or switches is None or not seen:
        return None
    return _on_lines(gap, symbols, switches) if switches else seen >= 2 or None


def _at(gap: Value, at: dict[Symbol, Value]) -> Decision:
    """Whether the expression is zero at a point; None outside the domain where all of its parts are real."""
    value = gap.subs(at)
    if value.has(sympy.nan, sympy.zoo, sympy.oo) or (not gap.has(sympy.I) and not _all_real(gap, at)):
        return None
    return vanishes(value)


def _all_real(gap: Value, at: dict[Symbol, Value]) -> bool:
    for part in sympy.preorder_traversal(gap):
        if (part.is_Pow and not part.exp.is_Integer) or part.is_Function:
            value = part.subs(at)
            if value.is_real is False or (
                value.is_real is None and abs(sympy.im(value.evalf(DIGITS))) > sympy.Float(10) ** -20
            ):
                return False
    return True


def _over_integers(gap: Value, symbols: Sequence[Symbol]) -> Decision:
    """False, or None for an expression in n, k or m alone, which may stand for integers, that is zero at the first."""
    if not {str(symbol) for symbol in symbols} <= {"n", "k", "m"}:
        return False
    return None if all(vanishes(gap.subs(dict.fromkeys(symbols, Integer(i)))) is True for i in range(1, 9)) else False


# --- absolute values, maxima, even roots -----------------------------------------------------------------------


def _switches(gap: Value) -> list[Value] | None:
    """What changes sign where the expression is not analytic; None where that is not known."""
    found: list[Value] = []
    for part in sympy.preorder_traversal(gap):
        if isinstance(part, Abs | sympy.sign):
            found.append(part.args[0])
        elif isinstance(part, Max | Min):
            found += [one - other for i, one in enumerate(part.args) for other in part.args[:i]]
        elif part.is_Pow and part.exp.is_Rational and part.exp.q % 2 == 0 and part.base.free_symbols:
            found.append(part.base)
        elif isinstance(part, sympy.re | sympy.im | sympy.arg | sympy.conjugate | sympy.Mod | sympy.Piecewise):
            return None
    return [one for one in found if one.free_symbols and not one.is_Symbol and not _keeps_its_sign(one)] or (
        [one for one in found if one.is_Symbol and gap.has(Abs, Max, Min, sympy.sign)]
    )


def _keeps_its_sign(switch: Value) -> bool:
    """Positive, or a sum of squares without a common factor: its zeros separate no two regions."""
    switch = switch.xreplace({symbol: Dummy(real=True) for symbol in switch.free_symbols})
    if switch.is_positive:
        return True
    return bool(
        switch.is_Add and all(term.is_nonnegative for term in switch.args) and sympy.gcd_list(switch.args).is_Rational
    )


def _on_lines(gap: Value, symbols: Sequence[Symbol], switches: list[Value]) -> Decision:
    """True if it is zero on both sides of every switch along several lines, False if not, None if they are unknown."""
    t, zero = Dummy("t"), 0
    lines = LINES[:1] if len(symbols) == 1 else LINES[1:]
    for (start, turn), (step, other) in lines:
        along = {symbol: start + turn * i + (step + other * i) * t for i, symbol in enumerate(symbols)}
        cuts = _cuts([switch.subs(along) for switch in switches], t)
        if cuts is None:
            return None
        decisions = [_at(gap, {s: value.subs(t, point) for s, value in along.items()}) for point in _between(cuts)]
        if False in decisions:
            return False
        zero += True in decisions
    return True if zero >= min(2, len(lines)) else None


def _cuts(switches: list[Value], t: Symbol) -> list[Value] | None:
    """The real zeros of the switches in order; None unless all are polynomials between those inside them."""
    zeros: set[Value] = set()
    for polynomial in (one for switch in switches for one in _branches(switch)):
        polynomial = sympy.prod(sympy.together(polynomial).as_numer_denom())
        if not polynomial.is_polynomial(t) or sympy.degree(polynomial, t) > 12:
            return None
        if t in polynomial.free_symbols:
            roots = sympy.Poly(polynomial, t).nroots(n=20, maxsteps=200)
            zeros |= {Rational(str(sympy.re(root))) for root in roots if abs(sympy.im(root)) < 1e-8 * (1 + abs(root))}
    return sorted(zeros) if len(zeros) <= MAX_CUTS else None


def _branches(switch: Value) -> Iterator[Value]:
    """The expression with every absolute value and maximum inside it replaced by each of what it may be."""
    inner = [part for part in sympy.preorder_traversal(switch) if isinstance(part, Abs | Max | Min)]
    if not inner or len(inner) > 5:
        yield switch
        return
    choices = [(one.args[0], -one.args[0]) if isinstance(one, Abs) else one.args for one in inner[:1]]
    for choice in product(*choices):
        yield from _branches(switch.xreplace(dict(zip(inner, choice, strict=False))))


def _between(cuts: list[Value]) -> list[Value]:
    """Two points in every interval that the cuts leave, and points far beyond the last ones."""
    if not cuts:
        return [*POINTS[:4], *FAR[:4]]
    inside = [low + (high - low) * Rational(part, 17) for low, high in pairwise(cuts) for part in (5, 11)]
    far = [Rational(7, 5), Rational(10007, 9)]
    return [cuts[0] - one for one in far] + inside + [cuts[-1] + one for one in far]


# --- floors and ceilings ---------------------------------------------------------------------------------------


def _over_a_period(gap: Value, x: Symbol, steps: list[Value]) -> Decision:
    """Whether a linear combination of x and of floors and ceilings of linear arguments is zero for every real x."""
    names = {step: Dummy() for step in set(steps)}
    lines = [sympy.Poly(step.args[0], x) for step in names if step.args[0].is_polynomial(x)]
    outside = gap.xreplace(names)
    linear = outside.is_polynomial(x, *names.values()) and sympy.Poly(outside, x, *names.values()).total_degree() <= 1
    if not linear or len(lines) < len(names) or any(line.degree() > 1 for line in lines):
        return None
    pairs = [(line.coeff_monomial(x), line.coeff_monomial(1)) for line in lines]
    if not all(one.is_Rational for pair in pairs for one in pair):
        return None
    period = sympy.ilcm(1, *(slope.q for slope, _ in pairs))
    if sum(abs(slope) for slope, _ in pairs) * period > MAX_STEPS:
        return None
    jumps = {
        (value - offset) / slope
        for slope, offset in pairs
        if slope != 0
        for value in range(*sorted((int(floor(offset)), int(ceiling(slope * period + offset)))))
    }
    edges = [Integer(0), *sorted(jump for jump in jumps if 0 <= jump < period), Integer(period)]
    points = [*edges, *((low + high) / 2 for low, high in pairwise(edges)), Rational(3 * period, 2) + Rational(1, 997)]
    return all(vanishes(gap.subs(x, point)) is True for point in points)


# --- powers that are not written out ---------------------------------------------------------------------------


def same_huge(left: Value, right: Value) -> Decision:
    """Equality of two products of powers that are too large to write down, by their prime factors."""
    factors = [one for one in map(_factors, (left, right)) if one is not None]
    if len(factors) < 2:
        return None
    if factors[0] == factors[1]:
        return True
    with mpmath.workdps(60):
        logarithms = [sum(mpmath.mpf(e.p) / e.q * mpmath.log(int(p)) for p, e in one.items()) for one in factors]
        apart = abs(logarithms[0] - logarithms[1]) > mpmath.mpf(10) ** -20
    return False if apart else None


def _factors(value: Value) -> dict[Value, Value] | None:
    """Prime factors and their exponents of a positive product of rationals and powers; None for anything else."""
    found: dict[Value, Value] = {}
    for factor in sympy.Mul.make_args(value):
        base, exponent = factor.args if isinstance(factor, Huge | Pow) else (factor, Integer(1))
        if not (base.is_Rational and exponent.is_Rational and base > 0):
            return None
        for prime, times in sympy.factorrat(base, limit=10**5).items():
            found[prime] = found.get(prime, 0) + times * exponent
    return {prime: exponent for prime, exponent in found.items() if exponent != 0}
