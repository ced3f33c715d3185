"""The page's CSS: one file, light and dark, for widths from a phone's up."""

from __future__ import annotations

# Eight hues that differ in lightness too, for eyes that do not tell all colours apart.
LIGHT = ("#1f5fbf", "#c8501b", "#13806a", "#a03a8f", "#8a6a00", "#5a54c9", "#b3243f", "#4d6b2f")
DARK = ("#7fb0ff", "#ff9a62", "#4fcfae", "#e69ad8", "#e0bd4a", "#aaa5ff", "#ff8095", "#a5cb80")

THEME_LIGHT = """--page:#f5f6f8;--card:#fff;--ink:#161a20;--soft:#545d6b;--edge:#dfe3e9;
--grid:#e9ecf1;--heat:#c8501b;--bad:#a3122d;--stage:#7d8da6;--draft:#e39a2d;--decode:#1f5fbf;
--host:#b9c2cf;--accepted:#13806a;--peak:#d5dbe4;"""
THEME_DARK = """--page:#101318;--card:#181c23;--ink:#eceff4;--soft:#a5afbe;--edge:#2b323d;
--grid:#272d37;--heat:#ff8a4c;--bad:#ff8095;--stage:#8494ad;--draft:#f0b04c;--decode:#6ea4ff;
--host:#4d586a;--accepted:#4fcfae;--peak:#39424f;"""

RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;color-scheme:light dark}
body{margin:0;background:var(--page);color:var(--ink);
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
 font-variant-numeric:tabular-nums}
main{max-width:1200px;margin:0 auto;padding:28px 16px 40px}
h1{font-size:26px;line-height:1.2;margin:0 0 6px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:16px;line-height:1.3;margin:0 0 4px}
p{margin:0 0 12px;color:var(--soft);overflow-wrap:anywhere}
header p{margin:0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
 margin:20px 0;padding:0;list-style:none}
.figures li,section{background:var(--card);border:1px solid var(--edge);border-radius:10px}
.figures li{padding:12px 14px;min-width:0}
.figures b{display:block;font-size:24px;line-height:1.25;font-weight:650}
.figures b small{font-size:14px;font-weight:500;color:var(--soft);margin-left:4px}
.figures span{display:block;font-size:13px;color:var(--soft);overflow-wrap:anywhere}
.figures .what{color:var(--ink);font-weight:600}
.sections{display:grid;grid-template-columns:minmax(0,1fr);gap:16px}
section{padding:16px;min-width:0}
section.absent{border-style:dashed;background:transparent}
section.absent p{margin:0}
svg{display:block;width:100%;height:auto}
svg.narrow{display:none}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
 font-variant-numeric:tabular-nums;fill:var(--soft)}
svg text.label,svg text.value{fill:var(--ink)}
svg text.name{font-weight:600}
line.grid{stroke:var(--grid)}
line.axis{stroke:var(--soft);stroke-width:1}
line.rule{stroke:var(--ink);stroke-dasharray:3 3}
.line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round}
.whisker{stroke:var(--c);stroke-width:1.5;opacity:.55}
.mark{fill:var(--c);stroke:var(--card);stroke-width:1.2}
.solid{fill:var(--c)}
.front{fill:none;stroke:var(--soft);stroke-width:1.5;stroke-dasharray:5 4}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;margin:10px 0 0;padding:0;
 font-size:13px;color:var(--soft)}
.legend li{display:flex;align-items:center;gap:6px;min-width:0;overflow-wrap:anywhere}
.key{flex:none;width:12px;height:12px;border-radius:3px}
svg.key{width:14px;height:14px}
.scroll{overflow-x:auto;margin:0 -2px;padding:2px}
table{border-collapse:collapse;font-size:13px;width:100%}
th,td{padding:6px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--edge)}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom}
th.word,td.word,tbody th{text-align:left}
caption{text-align:left;font-size:13px;font-weight:600;color:var(--soft);padding:0 0 6px}
.heat td,.heat tbody th,.heat thead th:first-child{min-width:64px}
.heat tbody th{white-space:normal;min-width:110px;font-weight:500}
.heat thead th:first-child{text-align:left;white-space:normal}
.heat td{font-size:15px;text-align:center;border:2px solid var(--card);border-radius:6px;
 background:color-mix(in srgb,var(--heat) calc(8% + var(--share)*.72),var(--card));padding:12px 8px}
.heat thead th{text-align:center}
.heat td.dark{color:var(--deep)}
.heat td.none{background:none;color:var(--soft)}
.notes{margin:20px 0 0;padding:0 0 0 18px;font-size:13px;color:var(--soft)}
.notes li{overflow-wrap:anywhere;margin:0 0 4px}
.notes .bad{color:var(--bad);font-weight:600}
@media (min-width:960px){main{padding:40px 24px 56px}
 .sections{grid-template-columns:repeat(2,minmax(0,1fr))}section.wide{grid-column:1/-1}section{padding:20px}}
@media (max-width:559px){svg.narrow{display:block}svg.wide{display:none}h1{font-size:22px}
 .figures{grid-template-columns:repeat(2,minmax(0,1fr))}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""


def style() -> str:
    """All of it, the themes by what the reader's system asks for."""
    marks = "".join(
        f".{name}{{--c:var(--{name});}}"
        for name in ("stage", "draft", "decode", "host", "accepted", "peak")
    )
    kinds = marks + ".fill{fill:var(--c)}i.key{background:var(--c)}"
    series = "".join(f".c{at}{{--c:var(--s{at})}}" for at in range(len(LIGHT)))
    return (
        f":root{{{THEME_LIGHT}--deep:#1c0d04;{_series(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{THEME_DARK}--deep:#1c0d04;{_series(DARK)}}}}}"
        f"{RULES}{kinds}{series}"
    )


def _series(colours: tuple[str, ...]) -> str:
    return "".join(f"--s{at}:{colour};" for at, colour in enumerate(colours))
