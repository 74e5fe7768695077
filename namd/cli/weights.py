"""`namd weights`: which pretrained weights a preset wants, and whether this machine has them."""

import argparse

from namd.cli.output import add_json_option, answer
from namd.models.weights import WeightStatus, describe

SUMMARY = "list the external weights a preset wants: found or not, licence, how to fetch them"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `namd weights`."""
    parser = subparsers.add_parser("weights", help=SUMMARY, description=SUMMARY)
    parser.add_argument("--preset", metavar="P", help="only what this preset can use")
    parser.add_argument("--method", metavar="M", help="of this method (default: namd)")
    add_json_option(parser)
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """List the weights; missing ones are no failure, since each has a named fallback.

    Raises InputError if the preset is unknown.
    """
    from namd.config.parsing import to_mapping
    from namd.pipeline.run_configuration import resolve

    config = None
    if arguments.preset is not None or arguments.method is not None:
        method = [] if arguments.method is None else [f"method={arguments.method}"]
        config = to_mapping(resolve(arguments.preset, None, method).config)
    statuses = describe(config)
    value = {
        "method": arguments.method,
        "preset": arguments.preset,
        "weights": [status.to_mapping() for status in statuses],
    }
    answer(arguments, value, "\n\n".join(as_text(status) for status in statuses))
    return 0


def as_text(status: WeightStatus) -> str:
    """Return a paragraph on one set of weights."""
    gate = " (gated: accept its terms on its page first)" if status.gated else ""
    lines = [
        f"{'found  ' if status.found else 'missing'} {status.name}: {status.title}",
        f"  used for  {status.purpose}",
        f"  licence   {status.licence}{gate}",
    ]
    if status.found:
        return "\n".join([*lines, f"  at        {status.path}"])
    lines += [f"  looked at {place}" for place in status.looked]
    if status.problem != "not on this disk":
        lines.append(f"  problem   {status.problem}")
    lines += [f"  fetch     {status.fetch}", f"  without   {status.fallback}"]
    return "\n".join(lines)
