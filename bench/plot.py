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
     $data using 2:3:4:5 with yerrorbars pt 0 ps 0 lc rgb "#333333"
""", width=max(480, 60 + 125 * len(data)))


def sweeps(lines, points):
    """What a disk makes of a sweep, by its size. LINES: {name: [(blocks, per second)]}, the model's; POINTS:
    [(name, blocks, per second)], what was measured."""
    blocks = []
    draw = []
    for i, (name, data) in enumerate(lines.items()):
        blocks.append(f"$l{i} << END\n" + "\n".join(f"{x} {y}" for x, y in data) + "\nEND")
        draw.append(f'$l{i} using ($1/1024):2 with linespoints lt {i + 1} pt 7 ps 0.5 title "{name}"')
    for i, (name, x, y) in enumerate(points):
        blocks.append(f"$p{i} << END\n{x} {y}\nEND")
        draw.append(f'$p{i} using ($1/1024):2 with points pt {9 + 2 * i} ps 1.6 lc rgb "#b3261e" title "{name}"')
    return gnuplot(f"""
set logscale x 2
set logscale y 2
set xlabel "Ki random blocks in one sweep"
set ylabel "blocks per second of the disk"
set key left top
set border 3
set xtics nomirror
set ytics nomirror
set grid lc rgb "#dddddd"
set linetype 1 lc rgb "#1f6fb2"
set linetype 2 lc rgb "#8a939c"
{chr(10).join(blocks)}
plot {", ".join(draw)}
""", height=340)


def gnuplot(script, width=700, height=300):
    head = f'set encoding utf8\nset terminal svg size {width},{height} font "sans-serif,12"\n'
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
    svg = re.sub(r"""\bid=(["'])([^"']+)\1""", rf'id="p{COUNT}-\2"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#p{COUNT}-\1)", svg)
    return re.sub(r"""href=(["'])#([^"']+)\1""", rf'href="#p{COUNT}-\2"', svg)
