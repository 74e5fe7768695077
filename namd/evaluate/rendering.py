"""A result table as text, Markdown and CSV. What the numbers are, `table` decides."""

import csv
import io
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from namd.config.flattening import flat
from namd.evaluate.calibration import SMALL_MM, DiameterAgreement
from namd.evaluate.table import IDEAL, ResultTable, Row, Spread
from namd.statistics.notices import RESEARCH_ONLY, simulated_notice

ABSENT = "-"
WIDTH = 150


def title_of(table: ResultTable) -> str:
    """Return the line above a table: split, cases, patients, and whether it is simulated."""
    title = (
        f"{table.split} split: {table.cases} cases, {table.patients} patients, "
        f"{table.malignant} malignant"
    )
    return f"{title} (simulated)" if table.simulated else title


def footnotes(table: ResultTable) -> list[str]:
    """Return the lines below a table."""
    lines = [
        f"+- over draws (ddof {_ddof(table)}); [..] {table.level:.0%}, {table.interval} "
        f"({table.num_bootstrap} resamples, the same for all rows), per draw crossed with draws.",
        *table.notes,
        RESEARCH_ONLY,
    ]
    return [simulated_notice(table.law), *lines] if table.simulated else lines


def score_cells(table: ResultTable) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the scores, one line per row."""
    header = [
        "row",
        "K",
        "AUROC",
        "AUROC per draw",
        "minus baseline",
        "gap recovered",
        "AUPRC per draw",
        "LPIPS",
        "FID",
        "fid_judge",
        "SSIM",
        "PSNR",
    ]
    if any(row.share_of_ideal for row in table.rows):
        header.insert(6, "of ideal")
    with_ideal, ddof = "of ideal" in header, _ddof(table)
    return header, [_score_cells(row, with_ideal, ddof) for row in table.rows]


def _ddof(table: ResultTable) -> int:
    return 0 if table.deviation == "population" else 1


def _score_cells(row: Row, with_ideal: bool, ddof: int) -> list[str]:
    difference = (row.difference_to_baseline or {}).get("auroc")
    cells = [
        row.title,
        str(row.num_draws),
        _spread(row.auroc, ddof),
        _spread(row.auroc_per_draw, ddof),
        _estimate(difference),
        _number(row.gap_recovered, 2),
        _spread(row.auprc_per_draw, ddof),
        _number(row.lpips),
        _number(row.fid, 1),
        _number(row.fid_judge, 2),
        _number(row.ssim),
        _number(row.psnr, 1),
    ]
    if with_ideal:
        share = row.share_of_ideal
        bounds = _bounds(share.low, share.high, 2) if share else ""
        cells.insert(6, _number(share.value if share else None, 2) + bounds)
    return cells


def faithfulness_cells(table: ResultTable) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the calibration, for rows that have draws or images."""
    quintiles = max((len(row.quintiles or ()) for row in table.rows), default=0)
    rows = [row for row in table.rows if row.diameter or row.quintiles]
    header = ["row", "coverage (rule)", "CRPS mm (rule)", "coverage (table)", "CRPS mm (table)"]
    header.append(f"bias mm, baseline < {SMALL_MM:g} mm")
    header += [f"P | p quintile {number + 1}" for number in range(quintiles)]
    return header, [_faithfulness_cells(row, quintiles) for row in rows]


def _faithfulness_cells(row: Row, quintiles: int) -> list[str]:
    agreements = (None, None) if row.diameter is None else (row.diameter.rule, row.diameter.table)
    cells = [row.title]
    for agreement in agreements:
        cells += [_coverage(agreement), _estimate(agreement.crps_mm, 2) if agreement else ABSENT]
    small = row.diameter.small if row.diameter else None
    cells.append(_estimate(small.bias_mm, 2) if small else ABSENT)
    for number in range(quintiles):
        found = row.quintiles[number] if row.quintiles and number < len(row.quintiles) else None
        if found is None:
            cells.append(ABSENT)
        elif found.ideal is None or row.row == IDEAL:
            cells.append(_number(found.mean))
        else:
            cells.append(f"{found.mean:.3f} ({found.mean - found.ideal:+.3f})")
    return cells


def share_cells(table: ResultTable) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the share of the ideal sampler's gain at several draws."""
    shares = {row.title: row.share_of_ideal.by_draws for row in table.rows if row.share_of_ideal}
    shares = {title: found for title, found in shares.items() if found}
    counts = sorted({entry.num_draws for found in shares.values() for entry in found})
    header = ["row"]
    for count in counts:
        header += [f"of ideal, K = {count}", f"minus ideal predictor, K = {count}"]
    rows = []
    for title, found in shares.items():
        entries = {entry.num_draws: entry for entry in found}
        cells = [title]
        for count in counts:
            entry = entries.get(count)
            cells.append(_estimate(entry.share, 2) if entry else ABSENT)
            cells.append(_estimate(entry.gap_to_predictor) if entry else ABSENT)
        rows.append(cells)
    return header, rows


def copies_cells(table: ResultTable) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the distances to the train crops, for rows that have them."""
    header = ["row", "distance to the nearest train crop", "copies"]
    rows = [(row.title, near) for row in table.rows if (near := row.nearest_train) is not None]
    return header, [[name, _estimate(near.distance), _estimate(near.copies)] for name, near in rows]


def to_text(table: ResultTable, width: int = WIDTH) -> str:
    """Return the tables for a terminal of `width` characters."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False)
    for title, (header, lines) in _parts(table):
        shown = Table(title=title, title_justify="left")
        for number, name in enumerate(header):
            shown.add_column(name, justify="left" if number == 0 else "right")
        for cells in lines:
            shown.add_row(*(cell.replace(" [", "\n[") for cell in cells))
        console.print(shown)
    for line in footnotes(table):
        console.print(line, soft_wrap=True)
    return stream.getvalue()


def to_markdown(table: ResultTable) -> str:
    """Return the tables as Markdown."""
    blocks = []
    for title, (header, lines) in _parts(table):
        rule = [":--", *["--:"] * (len(header) - 1)]
        written = ["| " + " | ".join(cells) + " |" for cells in (header, rule, *lines)]
        blocks.append("\n".join([f"**{title}**", "", *written]))
    blocks.append("\n".join(f"- {line}" for line in footnotes(table)))
    return "\n\n".join(blocks) + "\n"


def to_csv(table: ResultTable) -> str:
    """Return every number of every row, one line a row, nested names joined by dots."""
    lines = [flat(asdict(row), lists=True) | {"simulated": table.simulated} for row in table.rows]
    names = list(dict.fromkeys(name for line in lines for name in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, restval="")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _parts(table: ResultTable) -> list[tuple[str, tuple[list[str], list[list[str]]]]]:
    parts = [(title_of(table), score_cells(table))]
    faithful = faithfulness_cells(table)
    if faithful[1]:
        share = next((row.diameter.nominal_coverage for row in table.rows if row.diameter), 0.9)
        about = f"faithfulness: coverage of {share:.0%} diameter intervals, mean judge probability"
        about += ", in brackets minus the ideal sampler's" if table.simulated else ""
        parts.append((about + (" (simulated)" if table.simulated else ""), faithful))
    shares = share_cells(table)
    if shares[1]:
        about = "share of the ideal sampler's gain, and AUROC minus the ideal predictor's, by the "
        about += "number of draws averaged"
        parts.append((about + (" (simulated)" if table.simulated else ""), shares))
    copies = copies_cells(table)
    if copies[1]:
        about = "copies of train crops: share as near as the nearest 1% of real follow-ups"
        parts.append((about + (" (simulated)" if table.simulated else ""), copies))
    return parts


def _number(value: float | None, digits: int = 3) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def _spread(spread: Spread, ddof: int) -> str:
    if spread.mean is None:
        return ABSENT
    text = f"{spread.mean:.3f}"
    deviation = spread.std if ddof else spread.std_population
    if deviation is not None:
        text += f" +- {deviation:.3f}"
    return text + _bounds(spread.low, spread.high)


def _estimate(estimate: dict[str, float | None] | None, digits: int = 3) -> str:
    if not estimate or estimate["value"] is None:
        return ABSENT
    return f"{estimate['value']:.{digits}f}" + _bounds(estimate["low"], estimate["high"], digits)


def _bounds(low: float | None, high: float | None, digits: int = 3) -> str:
    return "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"


def _coverage(agreement: DiameterAgreement | None) -> str:
    return _estimate(agreement.coverage, 2) if agreement else ABSENT
