# SPDX-License-Identifier: BSD-3-Clause
"""Plots as SVG, by gnuplot. Without gnuplot there is a line that says so."""

import re
import subprocess

COUNT = 0


def bars(result):
    """The first metric of a workload: a bar for each column, with a line from the lowest to the highest."""
    metric = result.metrics[0]
    data = [(c, result.cell(c, metric.key)) for c in result.columns if result.cell(c, metric.key)]
    lines = [f'"{c}" {i} {cell[0]} {cell[1]} {cell[2]} {1 if c == "logcache" else 2}'
             for i, (c, cell) in enumerate(data)]
    return gnuplot(f"""
set style fill solid 0.8
set boxwidth 0.6
set yrange [0:*]
set xrange [-0.6:{len(data) - 0.4}]
set ylabel "{metric.label}"
set ytics nomirror
set xtics nomirror
set border 3
set grid ytics lc rgb "#dddddd"
unset key
set linetype 1 lc rgb "#1f6fb2"
set linetype 2 lc rgb "#b8bec6"
$data << END
{chr(10).join(lines)}
END
plot $data using 2:3:6:xtic(1) with boxes lc variable, \\
     $data using 2:3:4:5 with yerrorbars pt 0 lc rgb "#333333"
""", width=max(420, 110 * len(data)))


def gnuplot(script, width=700, height=300):
    head = f'set encoding utf8\nset terminal svg size {width},{height} font "sans-serif,12" dynamic\n'
    try:
        done = subprocess.run(["gnuplot"], input=(head + script).encode(), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=True)
    except FileNotFoundError:
        return "<p>(no plots: gnuplot is not installed)</p>"
    except subprocess.CalledProcessError as e:
        raise SystemExit(f"gnuplot: {e.stderr.decode(errors='replace')}") from e
    return embedded(done.stdout.decode())


def embedded(svg):
    """What can stand in a page beside others: no prologue, and ids that are nobody else's."""
    global COUNT
    COUNT += 1
    svg = svg[svg.index("<svg"):]
    svg = re.sub(r'id="([^"]+)"', rf'id="p{COUNT}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#p{COUNT}-\1)", svg)
    return re.sub(r"href='#([^']+)'|href=\"#([^\"]+)\"",
                  lambda m: f'href="#p{COUNT}-{m.group(1) or m.group(2)}"', svg)
