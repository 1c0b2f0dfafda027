"""Under which circumstances it was measured: for how long, on how many texts, and beside whom. Pure functions."""

from __future__ import annotations

from bench.judge.company import company_text
from bench.judge.interval import percent_text
from bench.judge.looks import SPEED_CONFIDENCE, looks_of
from bench.judge.summary import Summary


def circumstances(summary: Summary) -> tuple[str, ...]:
    """Return a sentence on each circumstance that there is."""
    return tuple(
        sentence for sentence in (*_cascades(summary), _end(summary), _looks(summary), _company(summary)) if sentence
    )


def scored_texts(summary: Summary) -> str:
    """Say how many of the evaluation texts were scored."""
    scored = len(summary.labels)
    if scored < summary.evaluation_texts and summary.is_complete:
        return f"{scored:,} of {summary.evaluation_texts:,} evaluation texts, for the others there was no time"
    return f"all {scored:,} evaluation texts"


def _cascades(summary: Summary) -> list[str]:
    """Say what each first stage answered, and what times that changes."""
    shares = [(row.info.name, row.throughput.first_stage_share) for row in summary.rows if row.throughput]
    return [
        f"The first stage of `{name}` answered {share:.0%} of the texts. A cascade lowers the median and not the tail: "
        "the other texts take as long as without it."
        for name, share in shares
        if share is not None
    ]


def _end(summary: Summary) -> str:
    why = {
        "time": "no further restart would have ended within `--budget-minutes`",
        "told apart": "all that can be shipped was told apart",
    }.get(summary.ended_by)
    most = summary.config.restarts
    return f"It ended after {summary.restarts} of at most {most} restarts, since {why}." if why else ""


def _looks(summary: Summary) -> str:
    looks = looks_of(summary.config)
    if not looks:
        return ""
    return (
        f"It could have ended early after {' or '.join(map(str, looks))} restarts: with "
        f"{percent_text(summary.confidence)} % each, intervals hold with {percent_text(SPEED_CONFIDENCE)} % whenever "
        "it ends."
    )


def _company(summary: Summary) -> str:
    return f"{company_text(summary.others)}." if summary.others else ""
