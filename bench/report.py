# SPDX-License-Identifier: BSD-3-Clause
"""Results as text, and as one HTML page that needs nothing else."""

import html

from bench import plot

# These have columns of their own in the table of all workloads; others are named in the last one.
COLUMNS = ["logcache", "null", "memory", "file", "cache filter"]


def number(value, digits=0):
    return f"{value:,.{digits}f}".replace(",", " ")


def cell_text(cell, digits):
    """median (lowest to highest)"""
    if cell is None:
        return ""
    median, low, high = cell
    if number(low, digits) == number(high, digits):
        return number(median, digits)
    return f"{number(median, digits)} ({number(low, digits)} to {number(high, digits)})"


def best_text(result, metric):
    best = result.best_other(metric)
    ours = result.cell("logcache", metric.key)
    if not best or not ours or not best[1]:
        return ""
    return f"{ours[0] / best[1]:.2f} × {best[0]}"


def goal_text(goal, judged):
    if judged is None:
        return f"{goal.text}: not measured"
    median, low, high, met = judged
    return (f"{goal.text}: {cell_text((median, low, high), goal.digits)}, "
            f"{'met' if met else 'NOT MET'}")


def plain_table(rows):
    """Columns of equal width, the first one to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(text.ljust(width) if i == 0 else text.rjust(width)
                               for i, (text, width) in enumerate(zip(row, widths))).rstrip()
                     for row in rows)


def details(result):
    """All metrics of one workload: a list of rows of text, with a head."""
    rows = [["", *result.columns, "logcache / best other"]]
    for metric in result.metrics:
        cells = [cell_text(result.cell(c, metric.key), metric.digits) for c in result.columns]
        if any(cells):
            rows.append([metric.label, *cells, best_text(result, metric)])
    return rows


def overview(results, external):
    """Each row a workload, each column a target; the first metric of each, medians."""
    columns = COLUMNS + external
    rows = [["workload", "unit", *columns, "others", "logcache / best other"]]
    for r in results:
        metric = r.metrics[0]

        def median(column, result=r, metric=metric):
            cell = result.cell(column, metric.key)
            return number(cell[0], metric.digits) if cell else ""

        others = ", ".join(f"{c} {median(c)}" for c in r.columns if c not in columns and median(c))
        rows.append([r.name, metric.label, *(median(c) for c in columns), others, best_text(r, metric)])
    return rows


def as_text(results, machine, external):
    parts = ["\n".join(f"{name}: {value}" for name, value in machine)]
    for r in results:
        lines = [f"{r.name}: {r.title}; medians of {len(r.rounds)} (lowest to highest)",
                 plain_table(details(r))]
        lines += [f"  {goal_text(goal, judged)}" for goal, judged in r.goals]
        parts.append("\n".join(lines))
    parts.append("All workloads, medians\n" + plain_table(overview(results, external)))
    judged = [j for r in results for _, j in r.goals if j]
    if judged:
        parts.append(f"{sum(j[3] for j in judged)} of {len(judged)} targets met")
    return "\n\n".join(parts)


def markdown_table(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def as_markdown(results, machine, command):
    """For docs/performance.md: the targets, and then all figures."""
    goals = [["workload", "target", "measured", ""]]
    for r in results:
        for goal, judged in r.goals:
            measured = cell_text(judged[:3], goal.digits) if judged else ""
            verdict = "not measured" if judged is None else "met" if judged[3] else "**not met**"
            goals.append([r.title, goal.text, measured, verdict])
    parts = ["; ".join(f"{name}: {value}" for name, value in machine) + f". `{command}`", "### Targets",
             markdown_table(goals), "### Figures",
             "Medians of the rounds, lowest and highest."]
    for r in results:
        parts += [f"**{r.title}** (`{r.name}`)", markdown_table(details(r))]
    return "\n\n".join(parts)


BEGIN, END = "<!-- scripts/bench --refresh: begin -->\n", "<!-- scripts/bench --refresh: end -->\n"


def refresh(path, text):
    """Put TEXT between the two marks of the file at PATH."""
    with open(path, encoding="utf-8") as f:
        old = f.read()
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{path} does not have the lines {BEGIN.strip()} and {END.strip()}")
    new = old[:old.index(BEGIN) + len(BEGIN)] + "\n" + text + "\n\n" + old[old.index(END):]
    with open(path, "w", encoding="utf-8") as f:
        f.write(new)


STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 78em; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: .7em 0; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .25em .7em; text-align: right; vertical-align: top }
th:first-child, td:first-child { text-align: left }
th { background: #f4f4f4 }
.ours { font-weight: 600 }
.met { color: #176d2b } .missed { color: #b3261e; font-weight: 600 } .none { color: #777 }
svg { max-width: 100%; height: auto }
h2 { margin-top: 2em; border-top: 1px solid #ccc; padding-top: 1em }
"""


def html_table(rows):
    def line(row, tag):
        return "<tr>" + "".join(f"<{tag}{' class=ours' if rows[0][i] == 'logcache' else ''}>"
                                f"{html.escape(text)}</{tag}>" for i, text in enumerate(row)) + "</tr>"

    return ("<table>" + line(rows[0], "th") + "".join(line(row, "td") for row in rows[1:]) +
            "</table>")


def html_goals(result):
    items = []
    for goal, judged in result.goals:
        kind = "none" if judged is None else "met" if judged[3] else "missed"
        items.append(f"<li class={kind}>{html.escape(goal_text(goal, judged))}</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""


def as_html(results, machine, external, command):
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>logcache: benchmark</title>",
             f"<style>{STYLE}</style><h1>logcache: benchmark</h1>",
             "<p>Medians of the rounds, with the lowest and highest. The targets take turns within each round; goals "
             "compare figures of one round. Compare figures of one run on one machine only.</p>",
             html_table([["machine", ""], *([name, value] for name, value in machine),
                         ["command", command]]),
             "<h2>All workloads</h2>", html_table(overview(results, external))]
    for r in results:
        parts.append(f"<h2 id={r.name}>{html.escape(r.title)}</h2>")
        parts.append(html_table(details(r)))
        parts.append(html_goals(r))
        parts += [plot.bars(r), r.extra]
    return "\n".join(parts) + "\n</html>\n"
