"""The style of a printed report: black on white, for paper first; no outside font, picture or script."""

CSS = """
@page { size: A4; margin: 18mm 16mm; }
* { box-sizing: border-box; }
body { font: 10pt/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #111; background: #fff; max-width: 60em; margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 20pt; line-height: 1.2; margin: 0 0 .2em; }
h2 { font-size: 14pt; margin: 2em 0 .5em; border-bottom: 1pt solid #111; break-after: avoid; }
h3 { font-size: 11pt; margin: 1.4em 0 .3em; break-after: avoid; }
p { margin: .4em 0; }
dl + dl { border-top: .5pt solid #bbb; padding-top: .6em; }
dl { break-inside: avoid; display: grid; grid-template-columns: 11em 1fr; gap: .15em 1em; margin: 1em 0; }
dt { color: #444; }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: .6em 0; font-size: 9pt; }
th, td { text-align: left; vertical-align: top; padding: .25em .5em .25em 0; border-bottom: .5pt solid #bbb; }
td.b { overflow-wrap: anywhere; }
th { border-bottom: 1pt solid #111; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr { break-inside: avoid; }
code, pre { font: 8pt/1.35 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; border-left: 2pt solid #bbb; padding-left: .7em; margin: .4em 0; }
.count { font-size: 16pt; font-weight: 600; font-variant-numeric: tabular-nums; }
.quiet { color: #444; }
.limits li { margin: .35em 0; }
section.control { break-inside: avoid-page; }
a { color: inherit; }
@media print { body { margin: 0; max-width: none; padding: 0; } a { text-decoration: none; } nav { display: none; } h2.annex { break-before: page; } }
"""
