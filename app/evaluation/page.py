"""The report: one HTML file that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from app.evaluation.listening import Example
from app.evaluation.peers import Comparison
from app.evaluation.summary import (
    SCORES,
    Line,
    kind_name,
    shown,
    shown_difference,
    shown_interval,
)
from app.picture import COLOURS, LABELS

STYLE = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1b1b1b; background: #fff;
       max-width: 1160px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem; } h2 { margin-top: 2.6rem; font-size: 1.25rem; }
h3 { margin: 1.8rem 0 .4rem; font-size: 1.05rem; }
p, figcaption, .note { color: #444; } figure { margin: .6rem 0; }
svg { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .55rem; text-align: right; white-space: nowrap; }
th { border-bottom: 1.5px solid #333; vertical-align: bottom; white-space: normal; }
td small { display: block; color: #777; }
td.word, th.word { text-align: left; } tr.first td { border-top: 1px solid #ccc; }
.worse { color: #b02a37; } .better { color: #19753b; }
.chip { display: inline-block; width: .85em; height: .85em; margin: 0 .3em 0 1em;
        vertical-align: -.08em; border-radius: 2px; }
.sound { display: grid; grid-template-columns: 250px 1fr; gap: .2rem 1rem; align-items: center;
         border-top: 1px solid #ddd; padding: .5rem 0; }
.sound img { width: 100%; } .sound audio { width: 250px; height: 34px; }
.sound small { color: #444; display: block; }
dt { float: left; clear: left; width: 9rem; color: #555; } dd { margin-left: 9.5rem; }
"""


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page shows."""

    labels: Mapping[str, str]
    """Of conditions."""
    lines: Sequence[Line]
    figures: Sequence[tuple[str, str, str]]
    """Title, caption, SVG."""
    comparisons: Sequence[Comparison]
    examples: Sequence[Example]
    facts: Sequence[tuple[str, str]]
    """What was measured with what: name and value."""

    def html(self) -> str:
        """The page, self-contained."""
        body = [
            "<h1>How speech survives loss</h1>",
            "<p>Means over clips and networks; after ± half a 95 % interval (bootstrap over"
            " clips). MOS estimates run from 1 (bad) to 5.</p>",
            self._facts(),
            "<h2>In figures</h2>",
            self._summary(),
        ]
        for title, caption, svg in self.figures:
            body.append(
                f"<h2>{escape(title)}</h2><figure>{svg}"
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        if self.comparisons:
            body.append("<h2>Beside others, pair by pair</h2>" + self._comparisons())
        if self.examples:
            body.append("<h2>To listen to</h2>" + self._listening())
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>Evaluation</title><style>{STYLE}</style></head>\n"
            "<body>" + "\n".join(body) + "</body></html>\n"
        )

    def _label(self, mode: str) -> str:
        return escape(self.labels.get(mode, mode))

    def _facts(self) -> str:
        items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in self.facts)
        return f"<dl>{items}</dl>"

    def _summary(self) -> str:
        if not self.lines:
            return ""
        scores = [name for name in SCORES if name in self.lines[0].scores]
        head = _head(
            ["networks", "buffer", "recovery"],
            ["kb/s", "lost", "rebuilt", "delay", *(SCORES[name][0] for name in scores)],
        )
        rows = []
        previous: tuple[str, str] | None = None
        for line in self.lines:
            group = line.kind, line.buffer
            first, previous = previous != group, group
            costs = line.costs
            delay = costs["delay_p50_ms"].value
            cells = [
                _word(kind_name(line.kind) if first else ""),
                _word(line.buffer if first else ""),
                f'<td class="word">{self._label(line.mode)}</td>',
                _number(shown(costs["kbps"].value, 1)),
                _number(_unit(shown(100 * costs["lost"].value, 1), "%")),
                _number(_unit(shown(100 * costs["recovered"].value, 0), "%")),
                _number(_unit(shown(delay, 0), "ms")),
                *(_number(shown_interval(line.scores[n], SCORES[n][1])) for n in scores),
            ]
            rows.append(_row(cells, first))
        return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>' + (
            '<p class="note">kb/s: all of the Opus payload, redundancy included, IP, UDP and RTP'
            " headers not. Lost: packets. Rebuilt: of the frames whose own packet was not there,"
            " those had from redundancy. Delay: median, from mouth to ear; the ideal buffer has"
            " none.</p>"
        )

    def _comparisons(self) -> str:
        measures = [name for name in SCORES if any(c.measure == name for c in self.comparisons)]
        head = _head(
            ["networks", "recovery, ours and theirs"],
            ["pairs", "kb/s", *(SCORES[name][0] for name in measures)],
        )
        lines: dict[tuple[str, str, str], dict[str, Comparison]] = {}
        for c in self.comparisons:
            lines.setdefault((c.peer, c.kind, c.ours), {})[c.measure] = c
        rows = []
        previous: tuple[str, str] | None = None
        for (peer, kind, ours), found in lines.items():
            first, previous = previous != (peer, kind), (peer, kind)
            any_one = next(iter(found.values()))
            cells = [
                _word(kind_name(kind) if first else ""),
                f'<td class="word">{self._label(ours)}'
                f"<small>{escape(peer)}: {escape(any_one.theirs)}</small></td>",
                _number(str(any_one.difference.count)),
                f"<td>{any_one.our_kbps:.1f}<small>{any_one.their_kbps:.1f}</small></td>",
                *(_difference(found.get(name)) for name in measures),
            ]
            rows.append(_row(cells, first))
        return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>' + (
            '<p class="note">Ours less theirs, paired, with its 95 % interval; below, ours and'
            " theirs. Coloured where the interval leaves out 0.</p>"
        )

    def _listening(self) -> str:
        used = [source for source in LABELS if source in COLOURS]
        chips = "".join(
            f'<span class="chip" style="background:{COLOURS[s]}"></span>{escape(LABELS[s])}'
            for s in used
        )
        parts = [
            '<p class="note">The strip above each spectrogram says how each 20 ms were had:'
            f"{chips}</p>"
        ]
        for example in self.examples:
            parts.append(
                f"<h3>The {escape(example.title)}: {escape(example.clip)} on"
                f" {escape(example.network)}, {escape(example.buffer)} buffer</h3>"
            )
            for sound in example.sounds:
                label = "as it was said" if sound.mode is None else self._label(sound.mode)
                figures = ""
                if sound.row is not None:
                    figures = ", ".join(
                        f"{title} {shown(float(value), places)}"
                        for name, (title, places) in SCORES.items()
                        if isinstance(value := sound.row.get(name), int | float)
                    )
                parts.append(
                    f'<div class="sound"><div><b>{label}</b><small>{escape(figures)}</small>'
                    f'<audio controls preload="none" src="{sound.audio}"></audio></div>'
                    f'<img alt="spectrogram: {label}" src="{sound.picture}"></div>'
                )
        return "".join(parts)


def _head(words: Sequence[str], numbers: Sequence[str]) -> str:
    cells = "".join(f'<th class="word">{escape(word)}</th>' for word in words)
    cells += "".join(f"<th>{escape(number)}</th>" for number in numbers)
    return f"<tr>{cells}</tr>"


def _row(cells: Sequence[str], first: bool) -> str:
    return f"<tr{' class=first' if first else ''}>{''.join(cells)}</tr>"


def _word(text: str) -> str:
    return f'<td class="word">{escape(text)}</td>'


def _number(text: str) -> str:
    return f"<td>{escape(text)}</td>"


def _unit(text: str, unit: str) -> str:
    return f"{text} {unit}" if text else ""


def _difference(c: Comparison | None) -> str:
    if c is None:
        return "<td></td>"
    places, d = SCORES[c.measure][1], c.difference
    manner = "better" if d.low > 0 else "worse" if d.high < 0 else ""
    return (
        f'<td class="{manner}">{escape(shown_difference(d, places))}'
        f"<small>{shown(c.our_mean, places)} / {shown(c.their_mean, places)}</small></td>"
    )
