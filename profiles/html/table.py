"""Every summary as a row: what the charts are drawn from."""

from __future__ import annotations

from html import escape

from ..record import Profile
from ..report import shown
from .section import Section

WORDS = ("bundle", "machine", "device", "precision", "case", "drafter")
# Number in a summary's row, its heading, and digits behind the point.
NUMBERS = (
    ("threads", "threads", 0),
    ("tokenize_ms", "tokenise ms", 2),
    ("features_ms", "features ms", 2),
    ("encode_ms", "encode ms", 2),
    ("first_decode_ms", "first decode ms", 2),
    ("ttft_ms", "ttft ms", 2),
    ("request_ttft_ms", "request ttft ms", 2),
    ("tpot_ms", "tpot ms", 3),
    ("decode_tps", "tokens/s", 1),
    ("itl_ms_p95", "gap p95 ms", 2),
    ("draft_ms", "draft ms", 2),
    ("verify_ms", "verify ms", 2),
    ("host_us", "host µs/step", 0),
    ("e2e_ms", "e2e ms", 1),
    ("speedup", "speed-up", 2),
    ("mean_acceptance_length", "tokens/step", 2),
    ("load_ms", "load ms", 0),
    ("peak_rss_mb", "peak MB", 0),
    ("bundle_mb", "bundle MB", 1),
    ("repeatable", "repeatable", 0),
)


def table(profile: Profile) -> Section:
    """Scrolls sideways in a box of its own, where it is wider than the page."""
    rows = [summary.row() for summary in profile.summaries]
    words = [name for name in WORDS if any(row[name] for row in rows)]
    head = "".join(f'<th scope="col" class="word">{escape(name)}</th>' for name in words)
    head += "".join(f'<th scope="col">{escape(title)}</th>' for _, title, _ in NUMBERS)
    body = ""
    for row in rows:
        body += "<tr>"
        body += "".join(f'<td class="word">{escape(shown(row[name], 0))}</td>' for name in words)
        body += "".join(
            f"<td>{escape(shown(row[name], digits))}</td>" for name, _, digits in NUMBERS
        )
        body += "</tr>"
    return Section(
        title="All numbers",
        says="Medians over the repetitions, warm-ups left out; every other number is in the JSON "
        "file. Times are of one request unless the heading says otherwise.",
        body='<div class="scroll" tabindex="0" role="region" aria-label="All numbers"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>",
        wide=True,
    )
