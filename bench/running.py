# SPDX-License-Identifier: BSD-3-Clause
"""Rounds in which the targets take turns.

The machine may become slower or faster at any time, for reasons of its own. So each round measures all columns
one after the other, each round begins with another one, goals compare what was measured in the same
round, and of the rounds the median counts.
"""

import statistics

class Result:
    """What was measured of one workload."""

    def __init__(self, workload):
        self.name = workload.name
        self.title = workload.title
        self.metrics = workload.metrics
        self.references = workload.references
        self.columns = list(workload.targets)
        self.rounds = []  # [{column: {metric: value}}]
        self.extra = ""  # one more plot
        self.goals = []  # [(goal, (median, lowest, highest, met) or None)]

    def values(self, column, key):
        return [r[column][key] for r in self.rounds if column in r and r[column].get(key) is not None]

    def cell(self, column, key):
        """(median, lowest, highest), or None."""
        values = self.values(column, key)
        return (statistics.median(values), min(values), max(values)) if values else None

    def best_other(self, metric):
        """(column, median) of the best target besides logcache; what it is compared with only, is none."""
        others = [(self.cell(c, metric.key)[0], c) for c in self.columns
                  if c != "logcache" and c not in self.references and self.cell(c, metric.key)]
        if not others or metric.better is None:
            return None
        value, column = max(others) if metric.better == "more" else min(others)
        return column, value


def measure(workload, column):
    result = workload.measure(column)
    target = workload.targets[column]
    if target is not None and target.dirties_page_cache:
        workload.machine.settle()
    return result


def run(workload, options, targets, progress):
    """Measure WORKLOAD. TARGETS: (name, target) that were given by the user. PROGRESS is told what goes on."""
    progress(f"{workload.name}: starting")
    workload.open()
    try:
        if workload.external:
            workload.targets.update(targets)
        if options.targets:
            wanted = set(options.targets) | set(workload.references) | {name for name, _ in targets}
            for column in [c for c in workload.targets if c not in wanted]:
                stopped = workload.targets.pop(column)
                if stopped is not None:
                    stopped.stop()
        result = Result(workload)
        if workload.warm_up:
            seconds, options.seconds = options.seconds, min(1, options.seconds / 2)
            for column in result.columns:
                measure(workload, column)
            options.seconds = seconds
        for number in range(options.runs):
            workload.round = number
            order = result.columns[number % len(result.columns):] + result.columns[:number % len(result.columns)]
            measured = {}
            for column in order:
                if number > 0 and column in workload.once:
                    measured[column] = result.rounds[0][column]
                    continue
                measured[column] = measure(workload, column)
                figure = workload.metrics[0]
                progress(f"{workload.name}: round {number + 1}, {column}: "
                         f"{measured[column][figure.key]:.{figure.digits}f} {figure.label}")
            result.rounds.append(measured)
    finally:
        workload.close()
    result.extra = workload.extra(result)
    result.goals = [(goal, goal.judge(result.rounds)) for goal in workload.goals]
    return result
