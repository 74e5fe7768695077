"""The format of numbers in a report."""


def number(value: float | None, digits: int = 3) -> str:
    """Return three decimals, or three significant digits from 100 on."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:.4g}"


def signed(value: float | None) -> str:
    """Return a difference with its sign, a typographic minus, and no sign for zero."""
    if value is None:
        return "-"
    text = f"{abs(value):.3f}" if abs(value) < 100 else f"{abs(value):.4g}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "\u2212") + text


def p_text(value: float | None) -> str:
    """Return a p value to two digits; small ones as a bound."""
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def seconds_text(seconds: float) -> str:
    """Return a duration in the unit that fits."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def count(amount: int, word: str) -> str:
    """Return `1 draw`, `2 draws`."""
    return f"{amount} {word}" + ("" if amount == 1 else "s")


def setting(path: str, value: object) -> str:
    """Return one changed value of a configuration."""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"{path} = {text}"
